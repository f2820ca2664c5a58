"""Figures (matplotlib) and HTML.

Nothing differs only in colour: lines differ in their dashes, curves and boxes of a chart in line, mark or hatch.
"""
