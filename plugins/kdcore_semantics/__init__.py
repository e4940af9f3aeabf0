"""Class embeddings, and losses that tie features to them."""

from kdcore import hookimpl


@hookimpl
def register_class_embeddings(register):
    """Announce ways to turn class names into vectors."""
    register("glove", "kdcore_semantics.glove:Glove")
    register("matrix", "kdcore_semantics.matrix:Matrix")
    register("sentence-encoder", "kdcore_semantics.sentence_encoder:SentenceEncoder")
    register("built-in", "kdcore_semantics.built_in:BuiltIn")


@hookimpl
def register_losses(register):
    """Announce the losses."""
    register("semantic-preserving", "kdcore_semantics.preserving:SemanticPreserving")
    register("semantic-match", "kdcore_semantics.match:SemanticMatch")
