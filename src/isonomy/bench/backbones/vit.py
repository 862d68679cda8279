"""Vision transformers: timm's, wrapped, with the foundation models among them.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021. Checkpoints: "augreg", Steiner et al., TMLR 2022; CLIP,
Radford et al., ICML 2021; SAM, Kirillov et al., ICCV 2023; DINO, Caron et al., ICCV 2021; DINOv2, Oquab et al., 2023.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench import _compat
from isonomy.bench.backbones.base import Backbone
from isonomy.bench.backbones.inputs import normalizer
from isonomy.bench.backbones.weights import load

# Short name: timm's name, with the tag of the checkpoint.
MODELS = {
    "vit_tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_large": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_in1k": "vit_base_patch16_384.augreg_in1k",
    "vit_base_in21k": "vit_base_patch16_224.augreg_in21k",
    "vit_base_in22k": "vit_base_patch16_384.augreg_in21k_ft_in1k",
    "vit_base_clip": "vit_base_patch16_clip_384.laion2b_ft_in12k_in1k",
    "vit_base_sam": "samvit_base_patch16.sa1b",
    "vit_base_dino": "vit_base_patch16_224.dino",
    "vit_base_dinov2": "vit_base_patch14_reg4_dinov2.lvd142m",
}


class ViT(Backbone):
    """A vision transformer's patch tokens after every quarter of its blocks, as maps.

    The last map has been through the final normalisation, where the network has one; class and register tokens are left
    out. SAM's neck, which makes 256 channels for its own decoder, is left out too.

    Attributes:
        body: timm's network.

    Args:
        name: One of ``MODELS``.
        size: Height and width of the images: multiples of the patch's side.
        normalize: ``"checkpoint"`` normalises images in [0, 1] with the statistics that the checkpoint was trained
            with, ``"imagenet"`` with ImageNet's; None leaves them.

    Raises:
        IsonomyError: For another normalisation, and without timm.
    """

    def __init__(self, name: str, size: tuple[int, int], normalize: str | None = "checkpoint") -> None:
        super().__init__()
        self.sam = name == "vit_base_sam"
        # Without pooling the final normalisation belongs to the tokens, which is where it is wanted.
        options = {} if self.sam else {"global_pool": ""}
        self.body = _compat.import_timm().create_model(
            MODELS[name], pretrained=False, img_size=size, num_classes=0, **options
        )
        if self.sam:
            self.body.neck = nn.Identity()
        configuration = self.body.pretrained_cfg
        self.normalize = normalizer(normalize, (configuration["mean"], configuration["std"]))
        quarter = len(self.body.blocks) // 4
        self.indices = [index * quarter - 1 for index in (1, 2, 3, 4)]
        self.channels = (self.body.embed_dim,) * 4
        self.strides = (self.body.patch_embed.patch_size[0],) * 4

    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last linear layer."""
        return list(self.body.blocks[-1].mlp.fc2.parameters())

    def forward(self, x: Tensor) -> list[Tensor]:
        """Four maps (B, C, H / patch, W / patch) of images (B, 3, H, W) in [0, 1]."""
        tokens, maps = self.body.forward_intermediates(self.normalize(x), indices=self.indices)
        if tokens.ndim == 3:
            patches = tokens[:, self.body.num_prefix_tokens :]
            tokens = patches.transpose(1, 2).unflatten(2, maps[-1].shape[-2:])
        return [*maps[:-1], tokens.contiguous()]


def load_vit(network: ViT, path: Path) -> int:
    """Loads weights in timm's layout or the authors', fitted to the size of the images. See ``weights.load``."""
    timm = _compat.import_timm()
    module = timm.models.vision_transformer_sam if network.sam else timm.models.vision_transformer

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted: dict[str, Tensor] = module.checkpoint_filter_fn(state, network.body)
        return _fit_sam(converted, network.body) if network.sam else converted

    return load(network.body, path, drop=("head.", "head_dist.", "fc_norm.", "neck."), convert=convert)


def _fit_sam(state: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Resizes SAM's positions to the network's grid, which timm leaves as they are."""
    fitted = dict(state)
    for name, own in body.state_dict().items():
        given = state.get(name)
        if given is None or given.shape == own.shape or given.shape[-1] != own.shape[-1]:
            continue
        if name == "pos_embed":
            planes = given.float().permute(0, 3, 1, 2)
            resized = functional.interpolate(planes, own.shape[1:3], mode="bicubic", antialias=True)
            fitted[name] = resized.permute(0, 2, 3, 1)
        elif "rel_pos" in name:
            fitted[name] = functional.interpolate(given.float().T[None], len(own), mode="linear")[0].T
    return fitted
