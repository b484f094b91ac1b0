# SPDX-License-Identifier: Apache-2.0
"""All choices that users make by name. Imports nothing, so that launch files need neither torch nor rclpy.

A dict maps each choice to the name of its implementation. To add a choice, implement it and add it here.
"""

# network/<module>.<class>
ARCHITECTURES = {"canet": "canet.CANet", "canet_lite": "canet.CANet"}
# network/<module>.<class or function>
BACKBONES = {
    "mobilenet_v2": "backbones.MobileNetV2",
    "efficientvit_b0": "efficient_vit.EfficientViT",
    "resnet18": "backbones.resnet18",
    "resnet50": "backbones.resnet50",
    "resnet101": "backbones.resnet101",
}
# Class or function in network/fusion.py
FUSIONS = {
    "fca": "FeatureCrossAttention",
    "fca_spatial": "spatial_attention_alone",
    "fca_channel": "channel_attention_alone",
    "concat": "Concatenation",
    "se": "SqueezeExcitation",
    "cbam": "ConvolutionalBlockAttention",
}
# Class or function in network/heads.py
HEADS = {"bilinear": "BilinearHead", "subpixel": "subpixel_head", "transposed": "TransposedHead"}
# Class in engines/<engine>_engine.py. The engine's Python package has the engine's name; tensorrt may also
# come as tensorrt_rtx_bindings.
ENGINES = {
    "torch": "TorchEngine",
    "openvino": "OpenVinoEngine",
    "onnxruntime": "OnnxRuntimeEngine",
    "tensorrt": "TensorRtEngine",
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Precisions that an engine supports; engines not listed support those of their device.
ENGINE_PRECISIONS = {
    "torch": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
}
CPU_ENGINES, GPU_ENGINES = ("openvino",), ("tensorrt",)
CPU_PRECISIONS = ("fp32", "bf16", "int8")  # fp16 is slower than fp32 on CPUs
PALETTES = ("dataset", "colorblind")
MASK_SIZES = ("image", "network")
TRANSPORTS = ("raw", "compressed", "ffmpeg", "foxglove")
# Imported networks (network: onnx in model.yaml): kind of the network, inputs and outputs of its graph
NETWORKS = ("torch", "onnx")
LAYOUTS = ("NCHW", "NHWC")
CHANNEL_ORDERS = ("rgb", "bgr")
ONNX_OUTPUTS = ("logits", "probabilities", "ids")
