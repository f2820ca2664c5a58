"""Figures and HTML (matplotlib).

No colour carries meaning alone: lines differ in their dashes, and the curves and boxes of a chart in line, mark or
hatch.
"""
