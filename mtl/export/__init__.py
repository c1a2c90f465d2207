"""A trained run leaves mtl: as a program of torch.export or as an ONNX file that needs neither mtl nor torch."""
