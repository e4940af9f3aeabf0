"""Published protocols of NTU RGB+D."""

from __future__ import annotations

from collections.abc import Sequence

from kdcore import Protocol, Sample, Splits
from kdcore_datasets.protocols.conditions import CrossView
from kdcore_datasets.protocols.partition import Value, values_of
from kdcore_datasets.protocols.subjects import CrossSubject

TRAINING_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
TRAINING_VIEWS = (2, 3)


class NtuCrossSubject(Protocol):
    """NTU RGB+D cross-subject: train on the 20 published training subjects and test on all others.

    Shahroudy et al., NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis, CVPR 2016,
    https://arxiv.org/abs/1604.02808, section 3.2.1.

    Args:
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.
    """

    def __init__(self, *, validation_subjects: int | tuple[Value, ...] = 0):
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by subject."""
        subjects = values_of(samples, "subject")
        train = tuple(each for each in subjects if each.isdecimal() and int(each) in TRAINING_SUBJECTS)
        test = tuple(each for each in subjects if each not in train)
        return CrossSubject(train_subjects=train, test_subjects=test, validation_subjects=self.validation_subjects).split(
            samples
        )


class NtuCrossView(Protocol):
    """NTU RGB+D cross-view: train on cameras 2 and 3 and test on camera 1.

    Shahroudy et al., NTU RGB+D: A Large Scale Dataset for 3D Human Activity Analysis, CVPR 2016,
    https://arxiv.org/abs/1604.02808, section 3.2.2.

    Args:
        validation_subjects: Validation subjects, or how many of the last subjects to hold out of the training views.
    """

    def __init__(self, *, validation_subjects: int | tuple[Value, ...] = 0):
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by camera."""
        views = values_of([sample for sample in samples if sample.key.view] or samples, "view")
        train = tuple(each for each in views if each.isdecimal() and int(each) in TRAINING_VIEWS)
        test = tuple(each for each in views if each not in train)
        rule = CrossView(train_views=train, test_views=test, validation_subjects=self.validation_subjects)
        return rule.split(samples)
