"""What the names of metrics mean, for the end of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NAMES: tuple[tuple[str, str, str], ...] = (
    ("exact_match", r"exact_match", "fraction of predictions equal to a reference"),
    ("words", r"words", "fraction of reference words predicted at their place"),
    ("bleu4", r"bleu4", "overlap of runs of 1 to 4 words, 0 to 1"),
    ("rouge_l", r"rouge_l", "longest common subsequence of words, F-measure, 0 to 1"),
    ("chrf", r"chrf", "F-score of character n-grams, 0 to 1"),
    ("sari", r"sari", "n-grams kept, added and left out of the source as the references do"),
    ("cider_d", r"cider_d", "overlap of words weighted by their rarity, 0 to 10"),
    ("fact_f1", r"fact_f1", "harmonic mean of precision and recall over all facts"),
    ("fact_NAME", r"fact_(?!f1$).+", "of references that state the fact, fraction predicted alike"),
    ("accuracy", r"accuracy", "fraction of rows with the right label"),
    ("f1", r"f1", "harmonic mean of precision and recall, mean over classes"),
    ("auroc", r"auroc", "area under the ROC curve; 0.5 is chance"),
    ("map", r"map", "average precision, mean over classes"),
    ("mae", r"(.+/)?mae", "mean absolute error, in the target's unit"),
    ("rmse", r"(.+/)?rmse", "root of the mean squared error, in the target's unit"),
    ("r2", r"(.+/)?r2", "explained fraction of the variance; 0 predicts the mean"),
    ("wer, cer", r"[wc]er", "errors divided by the words, characters of the references"),
    ("wer_low, wer_high", r"wer_(low|high)", "95 % bootstrap interval of the word error rate"),
    ("loss", r"(.+_)?loss", "mean cross-entropy of a predicted token, in nats"),
    ("perplexity", r"(.+_)?perplexity", "exponential of the loss"),
    ("last_word_accuracy", r"last_word_accuracy", "fraction of texts whose last word is right"),
    ("exact", r"exact", "fraction of transcripts without an error"),
    ("passes", r"passes", "mean number of passes of the decoder"),
    (
        "recall@k",
        r"(.+_)?recall@\d+.*",
        "fraction of queries with a right answer among the first k",
    ),
    ("mrr", r"(.+_)?mrr(_.+)?", "mean of 1 / rank of the first right answer"),
    ("median_rank", r".+_median_rank(_.+)?", "median rank of the first right answer; 1 is best"),
    ("ndcg@10", r".+_ndcg@10(_.+)?", "discounted gain of the first 10 answers, 1 is best"),
    ("map@10", r".+_map@10(_.+)?", "mean precision at the right ones of the first 10 answers"),
    ("chance@1", r".+_chance@1(_.+)?", "recall@1 of a random order"),
    ("..._active_dims", r".+_active_dims", "entries of a sparse vector that are not zero"),
    ("spearman", r"(dim\d+_)?spearman", "rank correlation of similarities and scores"),
    ("pearson", r"pearson", "correlation of similarities and scores"),
    ("A_to_B_...", r".+_to_.+", "A are the queries, B the candidates"),
    ("..._same_C", r".+_same_.+", "among rows that share the value of column C"),
    ("A_B_gap", r"(?!batch_).+_gap", "distance of the mean vectors of two streams"),
    ("zero_shot_...", r"zero_shot_.+", "accuracy of classes described by texts, and its chance"),
    ("cosine", r"cosine", "cosine similarity of student and teacher"),
    ("xsim", r"xsim", "fraction of students whose nearest teacher is another row's"),
    ("rank", r"rank", "number of directions that the vectors use"),
    ("spread", r"spread", "1 - length of the mean vector; 0 if all are equal"),
    ("l1", r"l1(_gripper|_joints)?", "mean absolute error of actions (of grippers, other joints)"),
    ("mse", r"mse", "mean squared error"),
    ("token_accuracy", r"token_accuracy", "fraction of action tokens that are right"),
    ("decodable", r"decodable", "fraction of chunks whose tokens could be decoded"),
    ("clipped", r"clipped", "fraction of recorded actions outside the tokenizer's bounds"),
    ("jerk, jerk_data", r"jerk(_data)?", "mean squared third difference, predicted and recorded"),
    ("iou, giou", r"g?iou", "overlap of boxes, intersection over union (generalized)"),
    ("box_hit", r"box_hit", "fraction of boxes that hold the predicted centre"),
    ("centre_error", r"centre_error", "distance of the centres, in mm or pixels"),
    ("missed", r"missed", "fraction of targets without a prediction"),
    ("dice", r"dice", "overlap of masks, 0 to 1"),
    ("hd95", r"hd95", "95th percentile of the distance of surfaces, in mm"),
    ("false_alarms", r"false_alarms", "of rows without a target, fraction with a prediction"),
    ("hit, chance", r"hit|chance", "fraction of peaks inside the mask, and that of a random token"),
    ("off", r"off", "distance of the peak from the mask's centre, in mm"),
    ("rows", r"rows", "number of rows with a mask"),
    ("batch_gap", r"batch_gap", "largest change of a metric if rows are scored one by one"),
)
"""Name as printed, pattern of the metrics that it explains, explanation."""


def explain(
    metrics: Iterable[str], task_names: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return `(name, explanation)` for those of `NAMES` that metrics have, each once, then for
    those that tasks explain themselves, by name (`task_names`)."""
    task_names = task_names or {}
    present = list(dict.fromkeys(metrics))
    explained = [(name, task_names[name]) for name in present if name in task_names]
    present = [name for name in present if name not in task_names]
    return [
        (name, text)
        for name, pattern, text in NAMES
        if any(re.fullmatch(pattern, metric) for metric in present)
    ] + explained
