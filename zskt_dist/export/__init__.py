"""Trained networks as files that run elsewhere, one module for each format; this one loads nothing heavy."""

FORMATS = {
    "safetensors": "weights and config.json, for Python with this package",
    "pt2": "program of torch.export, for Python or C++ with torch alone",
    "onnx": "for ONNX Runtime and others",
    "int8": "ONNX with weights in eight bits, quantized dynamically",
    "mlflow": "registered model in an MLflow store",
    "card": "README.md, a Hugging Face model card",
}
"""In the order in which they are made: the card tells of the others."""
DEFAULT_FORMATS = ("safetensors", "pt2", "onnx", "card")
