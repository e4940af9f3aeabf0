"""Class embeddings, and losses that tie features to them."""

from kdcore import hookimpl


@hookimpl
def register_class_embeddings(register):
    """Register the class embeddings."""
    register("glove", "kdcore_semantics.embeddings:Glove")
    register("matrix", "kdcore_semantics.embeddings:Matrix")
    register("sentence-encoder", "kdcore_semantics.embeddings:SentenceEncoder")
    register("built-in", "kdcore_semantics.embeddings:BuiltIn")


@hookimpl
def register_losses(register):
    """Register the losses."""
    register("semantic-preserving", "kdcore_semantics.losses:SemanticPreserving")
    register("semantic-match", "kdcore_semantics.losses:SemanticMatch")
