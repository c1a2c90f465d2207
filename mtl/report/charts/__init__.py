"""Figures of a page as plain marks with positions, which a template writes as SVG in the colours of the reader."""
