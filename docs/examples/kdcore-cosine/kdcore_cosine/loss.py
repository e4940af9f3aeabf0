"""The loss `cosine`."""

from torch.nn.functional import cosine_similarity

from kdcore import DistillationLoss, Needs


class CosineLoss(DistillationLoss):
    """One minus the cosine between the student's logits and each teacher's, averaged.

    .. math:: L = 1 - \\frac1K \\sum_k \\frac{z_S \\cdot z_k}{\\|z_S\\| \\|z_k\\|}
    """

    needs = Needs(teachers=1)

    def forward(self, ctx):
        """The mean over teachers and batch."""
        pairs = [(ctx.student.logits, teacher.logits) for teacher in ctx.teachers.values()]
        return sum(1 - cosine_similarity(s, t).mean() for s, t in pairs) / len(pairs)
