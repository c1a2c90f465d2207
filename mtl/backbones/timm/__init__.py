"""Backbones of the package timm, with or without its pretrained weights."""
