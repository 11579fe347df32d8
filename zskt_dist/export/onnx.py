"""ONNX files, written from a program of `torch.export`, and asked through ONNX Runtime; imports both late."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zskt_dist.errors import UserError

OPSET = 18
"""The oldest that PyTorch's exporter writes without translation: more runtimes take it."""
INPUT, OUTPUT = "images", "logits"
_LIMIT = 2**31 - 2**20
"""Bytes of weights; a protocol buffer ends at 2 GiB."""


def as_bytes(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """The content of an ONNX file with a dynamic batch, checked by ONNX.

    Raises:
        UserError: it is larger than ONNX can be; or whatever torch and ONNX raise, as of an unknown operator.
    """
    import onnx

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > _LIMIT:
        raise UserError(f"{size / 2**30:.1f} GiB of weights do not fit into an ONNX file, which ends at 2 GiB")
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    exported = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, verbose=False
    )
    assert exported is not None  # it is for the other, older exporter
    proto = exported.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


def quantized(content: bytes) -> bytes:
    """The same file with convolutions and linear layers in eight bits: weights now, activations as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = onnx.load_from_string(content)
    del proto.graph.value_info[:]  # shapes are inferred anew, for those of weights change where they are transposed
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, done = (Path(folder, name) for name in ("given.onnx", "prepared.onnx", "quantized.onnx"))
        onnx.save(proto, given)
        # Symbolic shapes are not to be had of every network, and int8 files are as good without.
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, done, weight_type=QuantType.QUInt8)  # on the CPU convolutions take no signed ones
        return done.read_bytes()


class OnnxNetwork:
    """An ONNX file's content on the CPU; as many threads as torch uses here. Images [B, C, H, W] to logits [B, K]."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        (logits,) = self._session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)
