"""Findings of one scan: burden, lesions, confidence, the patient's page."""
