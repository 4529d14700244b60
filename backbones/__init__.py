"""The shared language decoders."""

BACKBONES = {
    "causal": "sensorium.backbones.causal:Causal",
    "seq2seq": "sensorium.backbones.seq2seq:Seq2Seq",
}
