# SPDX-License-Identifier: Apache-2.0
"""Every choice that a user can make, once. Nothing is imported here: launch files read this without torch or rclpy.

Where something is chosen by name, the table says what its file calls it: to add one, write it and enter it here.
"""

# network/<file>.<what builds it>
ARCHITECTURES = {"canet": "canet.CANet", "canet_lite": "canet.CANet"}
# network/backbones.py: what builds it
BACKBONES = {
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
}
# network/fusion.py: what builds it
FUSIONS = {
    "fca": "FeatureCrossAttention",
    "fca_spatial": "spatial_attention_alone",
    "fca_channel": "channel_attention_alone",
    "concat": "Concatenation",
    "se": "SqueezeExcitation",
    "cbam": "ConvolutionalBlockAttention",
}
# network/heads.py: what builds it
HEADS = {"bilinear": "BilinearHead", "subpixel": "subpixel_head", "transposed": "TransposedHead"}
# inference/engines/<engine>_engine.py: the class in it. The engine's own package has the engine's name (or,
# of tensorrt, is tensorrt_rtx_bindings).
ENGINES = {
    "torch": "TorchEngine",
    "openvino": "OpenVinoEngine",
    "onnxruntime": "OnnxRuntimeEngine",
    "tensorrt": "TensorRtEngine",
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# What an engine computes with; one that is not named here: whatever its device can.
ENGINE_PRECISIONS = {
    "torch": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
}
CPU_ENGINES, GPU_ENGINES = ("openvino",), ("tensorrt",)
CPU_PRECISIONS = ("fp32", "bf16", "int8")  # CPUs compute slower in fp16 than in fp32
PALETTES = ("dataset", "colorblind")
MASK_SIZES = ("image", "network")
TRANSPORTS = ("raw", "compressed")
# Of a network that is not ours (network: onnx in model.yaml): who runs it, and what its graph takes and gives
NETWORKS = ("torch", "onnx")
LAYOUTS = ("NCHW", "NHWC")
CHANNEL_ORDERS = ("rgb", "bgr")
ONNX_OUTPUTS = ("logits", "probabilities", "ids")
