"""Distillation losses: on logits, features and relations between samples."""

from kdcore import hookimpl


@hookimpl
def register_losses(register):
    """Announce the losses."""
    register("cross-entropy", "kdcore_losses.cross_entropy:CrossEntropy")
    register("soft-target", "kdcore_losses.soft_target:SoftTarget")
    register("logits", "kdcore_losses.logits:Logits")
    register("consistency", "kdcore_losses.consistency:Consistency")
    register("fitnet", "kdcore_losses.fitnet:FitNet")
    register("attention-transfer", "kdcore_losses.attention_transfer:AttentionTransfer")
    register("rkd", "kdcore_losses.rkd:RelationalDistillation")
    register("similarity-preserving", "kdcore_losses.similarity_preserving:SimilarityPreserving")
    register("correlation-congruence", "kdcore_losses.correlation_congruence:CorrelationCongruence")
    register("ca-mkd", "kdcore_losses.ca_mkd:ConfidenceAware")
    register("dkd", "kdcore_losses.dkd:DecoupledDistillation")
