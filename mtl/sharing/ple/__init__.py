"""Progressive layered extraction, and customized gate control."""
