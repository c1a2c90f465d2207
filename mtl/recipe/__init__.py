"""The recipe: text -> plain values with places -> checked Recipe."""
