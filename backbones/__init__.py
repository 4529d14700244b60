"""The shared language decoders."""

BACKBONES = {
    "causal": "sensorium.backbones.causal:Causal",
    "diffusion": "sensorium.backbones.diffusion:Diffusion",
    "masked": "sensorium.backbones.masked:Masked",
    "seq2seq": "sensorium.backbones.seq2seq:Seq2Seq",
}
