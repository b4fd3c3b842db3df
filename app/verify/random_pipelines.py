"""Pipelines with the sizes of published models and random weights: their cost is real, the images noise.

Built on the device, or in the computer's memory for a lower offload level. The values are small, so that
nothing overflows. Not covered: text encoders, quantised weights, ControlNets.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from pleinair.app.verify.shapes import Adapter, Config, Shape

STD = 0.02  # of the weights, as models of these classes are initialised
_BLOCK = 2**22  # random numbers that are repeated in a large tensor
# IP-Adapter-plus, in every size: blocks of its resampler, width of a head
_BLOCKS, _HEAD = 4, 64


def empty_model(config: Config) -> Any:
    """Build a model of a class of diffusers without memory for its weights."""
    import diffusers
    import torch

    name, arguments = config
    with torch.device("meta"):
        return getattr(diffusers, name)(**arguments)


def read_config(config: Config) -> Mapping[str, Any]:
    """Return all arguments of a model, the class's defaults too."""
    values: Mapping[str, Any] = empty_model(config).config
    return values


def build_pipeline(name: str, shape: Shape, device: str, dtype: Any) -> Any:
    """Build a pipeline of class `name` on a device, without its text encoders and its progress bar."""
    import diffusers

    kind = getattr(diffusers, name)
    scheduler, arguments = shape.scheduler
    parts: dict[str, Any] = {
        "vae": _random_model(shape.vae, device, dtype),
        "scheduler": getattr(diffusers, scheduler)(**arguments),
        shape.part: _random_model(shape.denoiser, device, dtype),
        **shape.flags,
    }
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    missing = [each.name for each in parameters if each.default is each.empty and each.name not in parts]
    pipeline = kind(**parts, **dict.fromkeys(missing))
    if shape.adapter:
        _add_adapter(pipeline, shape.adapter, device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def embeddings(shape: Shape, references: int, device: Any, dtype: Any) -> dict[str, Any]:
    """Return random embeddings of a prompt with references, by argument of the pipeline's call."""
    import torch

    noise = torch.Generator("cpu").manual_seed(0)
    tensors = {}
    for name, size in shape.embeddings.items():
        if len(size) == 3:
            size = (size[0], size[1] + references * shape.reference_tokens, size[2])
        tensors[name] = torch.randn(size, generator=noise).to(device, dtype)
    return tensors


def part_bytes(shape: Shape, itemsize: int) -> dict[str, int]:
    """Return the bytes of the weights of each part, from the sizes alone; an adapter's are the U-Net's."""
    parts = {
        name: _count(empty_model(config)) * itemsize
        for name, config in ((shape.part, shape.denoiser), ("vae", shape.vae))
    }
    if shape.adapter:
        parts["image_encoder"] = _count(_empty_vision(shape.adapter)) * itemsize
    return parts


def _count(model: Any) -> int:
    return sum(tensor.numel() for tensor in model.parameters())


def _random_model(config: Config, device: str, dtype: Any) -> Any:
    model = empty_model(config)
    _restore_plain_tensors(model, config, device)
    return _filled(model, device, dtype)


def _filled(model: Any, device: str, dtype: Any) -> Any:
    """Allocate a model's weights: small random ones; norms and variances are 1, biases are 0."""
    import torch

    model = torch.nn.Module.to(model, dtype).to_empty(device=device)
    model.eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.ndim > 1:
                _fill(tensor)
            else:
                tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return model


def _fill(tensor: Any) -> None:
    """Fill a tensor with noise; a large one with the same noise again, as the CPU makes 10⁸ a second."""
    import torch

    size = tensor.numel()
    noise = torch.randn(min(size, _BLOCK), device=tensor.device, dtype=torch.float32).mul_(STD)
    copies = math.ceil(size / len(noise))
    tensor.copy_(noise.to(tensor.dtype).repeat(copies)[:size].view(tensor.shape))


def _restore_plain_tensors(model: Any, config: Config, device: str) -> None:
    """Replace modules with tensors that are no buffers, such as rotary frequencies, by a small model's.

    Such a tensor is computed when a module is built, and no allocation restores its values.
    """
    import diffusers
    import torch

    broken = [
        name
        for name, module in model.named_modules()
        if any(isinstance(value, torch.Tensor) and value.is_meta for value in vars(module).values())
    ]
    if not broken:
        return
    name, arguments = config
    small = {"num_layers": 1, "num_attention_heads": 1, "joint_attention_dim": 8}
    whole = getattr(diffusers, name)(**{**arguments, **small})
    for place in broken:
        module = whole.get_submodule(place)
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                setattr(module, key, value.to(device))
        model.set_submodule(place, module)


def _empty_vision(adapter: Adapter) -> Any:
    import torch
    import transformers

    config = transformers.CLIPVisionConfig(**adapter.vision, hidden_act="gelu")
    with torch.device("meta"):
        return transformers.CLIPVisionModelWithProjection(config)


def _add_adapter(pipeline: Any, adapter: Adapter, device: str, dtype: Any) -> None:
    """Load random weights of an IP-Adapter-plus into a pipeline, by the class's own loader."""
    import transformers

    vision = _filled(_empty_vision(adapter), device, dtype)
    size = {"shortest_edge": adapter.vision["image_size"]}
    crop = dict.fromkeys(("height", "width"), adapter.vision["image_size"])
    processor = transformers.CLIPImageProcessor(size=size, crop_size=crop)
    pipeline.register_modules(image_encoder=vision, feature_extractor=processor)
    unet = pipeline.unet
    shapes = _projections(unet) | {
        f"image_proj.{name}": shape for name, shape in _resampler(unet, adapter).items()
    }
    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, shape in shapes.items():
        group, _, key = name.partition(".")
        state[group][key] = _weight(shape, device, dtype)
    pipeline.load_ip_adapter(state, subfolder="", weight_name="")


def _weight(shape: tuple[int, ...], device: str, dtype: Any) -> Any:
    import torch

    if len(shape) == 1:
        return torch.ones(shape, device=device, dtype=dtype)
    tensor = torch.empty(shape, device=device, dtype=dtype)
    _fill(tensor)
    return tensor


def _projections(unet: Any) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the adapter's keys and values, by its authors' names: odd numbers."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(names):
        size = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * number + 1}.{part}.weight"] = (size, unet.config.cross_attention_dim)
    return shapes


def _resampler(unet: Any, adapter: Adapter) -> Mapping[str, tuple[int, ...]]:
    """Return the sizes of the resampler's weights, by its authors' names."""
    inside, out = adapter.width, unet.config.cross_attention_dim
    heads = inside // _HEAD * _HEAD
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, adapter.queries, inside),
        "proj_in.weight": (inside, adapter.vision["hidden_size"]),
        "proj_in.bias": (inside,),
        "proj_out.weight": (out, inside),
        "proj_out.bias": (out,),
        "norm_out.weight": (out,),
        "norm_out.bias": (out,),
    }
    block = {
        "0.to_q.weight": (heads, inside),
        "0.to_kv.weight": (2 * heads, inside),
        "0.to_out.weight": (inside, heads),
        "1.1.weight": (4 * inside, inside),
        "1.3.weight": (inside, 4 * inside),
    }
    norms = ("0.norm1", "0.norm2", "1.0")
    for number in range(_BLOCKS):
        for name, shape in block.items():
            shapes[f"layers.{number}.{name}"] = shape
        for name in norms:
            shapes |= {f"layers.{number}.{name}.{part}": (inside,) for part in ("weight", "bias")}
    return shapes
