"""Each convolution gets a bias of its own, as engines want it.

A head that all levels of a pyramid share is several convolutions with the same weights. OpenVINO
joins a convolution with its bias, and with the ReLU behind it, only if no other one reads that
bias; else it goes over every map twice more.
"""

from __future__ import annotations

from onnx import ModelProto, TensorProto


def give_own_biases(proto: ModelProto) -> None:
    """Copy biases that several convolutions share, in place; the first one keeps the name."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken = set[str]()
    for node in proto.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in stored:
            continue
        bias = node.input[2]
        if bias in taken:
            own = TensorProto()
            own.CopyFrom(stored[bias])
            own.name = node.input[2] = f"{bias}/{node.output[0]}"
            proto.graph.initializer.append(own)
        taken.add(bias)
