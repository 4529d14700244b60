"""Networks of timm, open_clip and MONAI: the smallest of each family, and what makes it small."""

from __future__ import annotations

import json
from typing import Any

import open_clip

Fields = dict[str, Any]

UNITS = {"channels": [8, 16, 32], "strides": [2, 2]}
VIT = {
    "img_size": [64, 64, 64], "patch_size": [16, 16, 16], "hidden_size": 48, "mlp_dim": 64,
    "num_layers": 2, "num_heads": 4,
}  # fmt: skip
UNETR = {"img_size": 64, "feature_size": 8, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4}
RESNET = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 24, 32]}
DENSE = {"init_features": 8, "growth_rate": 8, "block_config": [2, 2, 2, 2]}
SENET = {"layers": [1, 1, 1, 1]}
DYN = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
KL = {
    "channels": [8, 16], "attention_levels": [False, False], "num_res_blocks": 1,
    "norm_num_groups": 4, "latent_channels": 4,
}  # fmt: skip
SHAPE = {"in_shape": [1, 64, 64, 64], **UNITS}

MONAI: dict[str, Fields] = {
    "AHNet": {}, "AttentionUnet": UNITS, "AutoEncoder": UNITS, "AutoencoderKL": KL,
    "BasicUNet": {"features": [8, 8, 16, 16, 32, 8]},
    "BasicUNetPlusPlus": {"features": [8, 8, 16, 16, 32, 8]},
    "Classifier": {**SHAPE, "classes": 2}, "Critic": SHAPE, "Discriminator": SHAPE,
    "DenseNet": DENSE, "DenseNet121": {}, "densenet121": {}, "DAF3D": {},
    "DynUNet": DYN, "EfficientNet": {
        "blocks_args_str": ["r1_k3_s11_e1_i8_o8_se0.25", "r1_k3_s22_e6_i8_o16_se0.25"],
    },
    "EfficientNetBN": {"model_name": "efficientnet-b0", "pretrained": False},
    "FlexibleUNet": {"backbone": "efficientnet-b0"}, "GlobalNet": {
        "image_size": [64, 64, 64], "num_channel_initial": 8, "depth": 2,
    },
    "HighResNet": {}, "LocalNet": {"num_channel_initial": 8, "extract_levels": [0, 1, 2]},
    "MedNeXt": {"init_filters": 8}, "PatchDiscriminator": {"channels": 8},
    "MultiScalePatchDiscriminator": {"num_d": 1, "channels": 8, "num_layers_d": 2},
    "RegUNet": {"num_channel_initial": 8, "depth": 2},
    "Regressor": {**SHAPE, "out_shape": [1]}, "ResNet": RESNET, "resnet10": {}, "resnet18": {},
    "ResNetFeatures": {"model_name": "resnet10", "pretrained": False},
    "SegResNet": {"init_filters": 8}, "SegResNetDS": {"init_filters": 8},
    "SegResNetVAE": {"input_image_size": [64, 64, 64], "init_filters": 8},
    "SENet": {
        "block": "se_bottleneck", "groups": 1, "reduction": 16, "num_classes": 2, **SENET,
    },
    "SEResNet50": SENET, "SEResNext50": SENET, "SENet154": SENET,
    "SwinUNETR": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
    "UNet": UNITS, "UNETR": UNETR, "VarAutoEncoder": {**SHAPE, "latent_size": 8}, "ViT": VIT,
    "ViTAutoEnc": {**VIT}, "VNet": {}, "VoxelMorphUNet": UNITS, "VQVAE": {
        "channels": [8, 16], "num_res_layers": 1, "num_res_channels": [8, 16],
        "downsample_parameters": [[2, 4, 1, 1], [2, 4, 1, 1]],
        "upsample_parameters": [[2, 4, 1, 1, 0], [2, 4, 1, 1, 0]], "num_embeddings": 16,
        "embedding_dim": 8,
    },
    "MaskedAutoEncoderViT": VIT, "HyenaNDUNETR": {},
}  # fmt: skip
"""Networks of `monai.networks.nets` that take volumes, with arguments that make them small."""


SMALL_VIT = {"layers": 2, "width": 64, "head_width": 32}
SMALL_RESNET = {"layers": [1, 1, 1, 1], "width": 16}


def _open_clip() -> dict[str, Fields]:
    """Return one model for each visual tower; those of open_clip's own become small."""
    networks: dict[str, Fields] = {}
    towers: set[str] = set()
    for name in open_clip.list_models():
        vision = open_clip.get_model_config(name)["vision_cfg"]
        own_tower = "timm_model_name" not in vision
        transformer = isinstance(vision.get("layers", 12), int)
        small = {"vision_cfg": SMALL_VIT if transformer else SMALL_RESNET} if own_tower else {}
        sizes = ("image_size", "width", "layers", "head_width") if own_tower else ("image_size",)
        rest = {k: v for k, v in vision.items() if k not in sizes}
        key = json.dumps(rest, sort_keys=True, default=str)
        if key not in towers:
            towers.add(key)
            networks[name] = small
    return networks


OPEN_CLIP = _open_clip()

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", {}),
    "byoanet": ("halonet_h1", {}),
    "byobnet": ("test_byobnet", {}),
    "cait": ("cait_xxs24_224", {}),
    "coat": ("coat_tiny", {}),
    "convit": ("convit_tiny", {}),
    "convmixer": ("convmixer_768_32", {}),
    "convnext": ("test_convnext", {}),
    "cpubone": ("cpubone_nano", {}),
    "crossvit": ("crossvit_tiny_240", {}),
    "csatv2": ("csatv2", {}),
    "cspnet": ("cs3darknet_focus_s", {}),
    "cspnext": ("cspnext_tiny", {}),
    "davit": ("davit_tiny", {}),
    "deepseek_vit": ("deepseek_vit_412m", {}),
    "deit": ("deit_tiny_patch16_224", {}),
    "densenet": ("densenet121", {}),
    "dla": ("dla46_c", {}),
    "dpn": ("dpn48b", {}),
    "edgenext": ("edgenext_xx_small", {}),
    "efficientformer": ("efficientformer_l1", {}),
    "efficientformer_v2": ("efficientformerv2_s0", {}),
    "efficientnet": ("test_efficientnet", {}),
    "efficientvim": ("efficientvim_m1", {}),
    "efficientvit_mit": ("efficientvit_b0", {}),
    "efficientvit_msra": ("efficientvit_m0", {}),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", {}),
    "fasternet": ("fasternet_t0", {}),
    "fastvit": ("fastvit_t8", {}),
    "focalnet": ("focalnet_tiny_srf", {}),
    "gcvit": ("gcvit_xxtiny", {}),
    "gemma4_vit": ("gemma4_vit_167m", {}),
    "ghostnet": ("ghostnet_050", {}),
    "hardcorenas": ("hardcorenas_b", {}),
    "hgnet": ("hgnetv2_b0", {}),
    "hiera": ("hiera_tiny_224", {}),
    "hieradet_sam2": ("sam2_hiera_tiny", {}),
    "hrnet": ("hrnet_w18_small", {}),
    "iformer": ("iformer_t", {}),
    "inception_next": ("inception_next_atto", {}),
    "inception_resnet_v2": ("inception_resnet_v2", {}),
    "inception_v3": ("inception_v3", {}),
    "inception_v4": ("inception_v4", {}),
    "lcnetv2": ("lcnetv2_small", {}),
    "levit": ("levit_128", {}),
    "lowformer": ("lowformer_b0", {}),
    "mambaout": ("test_mambaout", {}),
    "maxxvit": ("test_coatnet", {}),
    "metaformer": ("poolformer_s12", {}),
    "mlp_mixer": ("gmlp_ti16_224", {}),
    "mobilenetv3": ("lcnet_035", {}),
    "mobilenetv5": ("mobilenetv5_base", {}),
    "mobilevit": ("mobilevit_xxs", {}),
    "mvitv2": ("mvitv2_tiny", {}),
    "naflexvit": ("naflexvit_base_patch16_gap", {}),
    "nasnet": ("nasnetalarge", {}),
    "nest": ("nest_tiny", {}),
    "nextvit": ("nextvit_small", {}),
    "nfnet": ("test_nfnet", {}),
    "pit": ("pit_ti_224", {}),
    "pnasnet": ("pnasnet5large", {}),
    "pvt_v2": ("pvt_v2_b0", {}),
    "qwen3_vit": ("qwen3_vit_88m", {}),
    "rdnet": ("rdnet_tiny", {}),
    "regnet": ("regnetx_002", {}),
    "repghost": ("repghostnet_050", {}),
    "repvit": ("repvit_m1", {}),
    "res2net": ("res2next50", {}),
    "resnest": ("resnest14d", {}),
    "resnet": ("test_resnet", {}),
    "resnetv2": ("resnetv2_18", {}),
    "rexnet": ("rexnet_100", {}),
    "selecsls": ("selecsls42", {}),
    "senet": ("legacy_seresnet18", {}),
    "sequencer": ("sequencer2d_s", {}),
    "shvit": ("shvit_s1", {}),
    "sknet": ("skresnet18", {}),
    "starnet": ("starnet_s050", {}),
    "swiftformer": ("swiftformer_xs", {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", {}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", {}),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", {}),
    "tiny_vit": ("tiny_vit_5m_224", {}),
    "tnt": ("tnt_s_legacy_patch16_224", {}),
    "tresnet": ("tresnet_m", {}),
    "twins": ("twins_svt_small", {}),
    "vgg": ("vgg11", {}),
    "visformer": ("visformer_tiny", {}),
    "vision_transformer": ("test_vit", {}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {}),
    "vision_transformer_relpos": ("test_vit_relpos", {}),
    "vision_transformer_sam": ("samvit_base_patch16_224", {}),
    "vitamin": ("vitamin_small_224", {}),
    "volo": ("volo_d1_224", {}),
    "vovnet": ("ese_vovnet19b_slim_dw", {}),
    "xception": ("legacy_xception", {}),
    "xception_aligned": ("xception41p", {}),
    "xcit": ("xcit_nano_12_p8_224", {}),
}
