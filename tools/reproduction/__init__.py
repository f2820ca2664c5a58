"""The paper's study, step by step."""
