"""Checks that the parts of a recipe are compatible, without reading data or constructing networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdcore.contracts.needs import Needs
from kdcore.contracts.protocol import HELD_OUT
from kdcore.contracts.schedule import Graph, Stage
from kdcore.contracts.target import Target
from kdcore.errors import PluginError, Problem
from kdcore.plugin.facts import ComponentFacts, ask, component_facts, facts_of
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.components import as_mapping
from kdcore.recipe.graph import LearnerTerm, peers_of, recipe_graph, terms_of
from kdcore.recipe.models import Recipe
from kdcore.recipe.problems import Places
from kdcore.recipe.schedule_checks import default_stages, place_in_schedule, schedule_problems, stages_of, unread_training
from kdcore.recipe.target_checks import loss_problems, metric_problems, target_problems
from kdcore.recipe.validate import Checked
from kdcore.recipe.yaml import steps
from kdcore.suggestions import did_you_mean


def check_compatibility(recipe: Recipe, tree: Mapping[str, Any], checked: Checked, places: Places) -> list[Problem]:
    """Find unknown modalities and participants, unmet needs of loss terms, and contradictions of schedule and graph.

    Args:
        recipe: The recipe, with the valid values of `tree`.
        tree: All values as written. A key that is present here is not reported as missing, even if its value is invalid.
        checked: Components of the recipe; unusable ones are skipped.
        places: Source locations of the values.
    """
    return _Compatibility(recipe, tree, checked, places).check()


class _Compatibility:
    def __init__(self, recipe: Recipe, tree: Mapping[str, Any], checked: Checked, places: Places):
        self.recipe, self.tree, self.checked, self.places = recipe, tree, checked, places
        self.problems: list[Problem] = []
        self.specs = recipe.participants
        self.group_of = {name: group for group in ("teachers", "students") for name in as_mapping(tree.get(group))}
        if "student" in tree:
            self.group_of["student"] = "students"
        paths = dict.fromkeys(path for name, spec in self.specs.items() if spec.is_network for path in recipe.term_paths(name))
        self.losses = {path: self._facts(path) for path in paths}
        self.graph = recipe_graph(recipe, self._needs)
        self.terms = {name: terms_of(recipe, self.graph, name, self._needs) for name in self.specs}
        self.target, self.weighted = self._target()

    def check(self) -> list[Problem]:
        self._modalities()
        self._facts("data.protocol")
        for problem in target_problems(self.recipe, self.target, self._facts):
            self._add(*problem)
        if self.recipe.fusion and self.tree.get("teachers", {}) == {}:
            self._add("fusion", "there are no teachers to fuse")
        self._sources()
        self._fixed_networks()
        self._objectives()
        self._sources_of_weights()
        self._unread_sources()
        if not self.problems:
            self._schedule()
        return self.problems

    def _add(self, path: str, message: str, hint: str = "") -> None:
        self.problems.append(self.places.problem(steps(path), message, hint))

    def _facts(self, path: str) -> ComponentFacts | None:
        """Facts about the component at `path`, or about the class of an encoder, which needs data to be constructed.

        Returns None if the component is unusable, which is reported.
        """
        if path.endswith(".encoder"):
            return self._class_facts(path)
        if (given := self.recipe.given(path)) is not None:
            return facts_of(given)
        try:
            return component_facts(*self.checked.usable[steps(path)]) if steps(path) in self.checked.usable else None
        except PluginError as error:
            self._add(path, str(error))
            return None

    def _class_facts(self, path: str) -> ComponentFacts | None:
        """Facts about the class of the component at `path`, whatever its options."""
        entry = self.checked.known.get(steps(path))
        return component_facts(entry) if entry else None

    def _needs(self, path: str) -> Needs | None:
        facts = self.losses.get(path)
        return facts.needs if facts else None

    def _is_fixed(self, name: str) -> bool:
        facts = self._facts(f"{self.recipe.path_of(name)}.encoder")
        return facts is not None and facts.fixed

    def _modalities(self) -> None:
        """Check that the dataset has every modality, unless that is unknown without data."""
        dataset = self._facts("data.dataset") or self._class_facts("data.dataset")
        if dataset is None or dataset.modalities is None:
            return
        described = "passed as data" if self.recipe.given_dataset is not None else repr(self.recipe.data.dataset.name)
        for name, spec in self.recipe.specs.items():
            path = f"{self.recipe.path_of(name)}.modality"
            for index, modality in enumerate(spec.modalities):
                if modality not in dataset.modalities:
                    what = f"the dataset {described} has no modality {modality!r}"
                    hint = did_you_mean(modality, sorted(dataset.modalities), "it has")
                    self._add(path if isinstance(spec.modality, str) else f"{path}[{index}]", what, hint)

    def _target(self) -> tuple[Target | None, bool]:
        """Return the dataset's target, None if unknown without data, and whether its samples may have weights."""
        dataset = self._facts("data.dataset")
        if dataset is None or (self.recipe.given_dataset is None and self.recipe.data.dataset.name == FROM_PYTHON):
            return None, False
        return dataset.target, dataset.weighted

    def _sources(self) -> None:
        """Check that the sources of each participant exist and can be used, and that it has something to learn."""
        for name, spec in self.recipe.specs.items():
            path, is_teacher = self.recipe.path_of(name), name in self.recipe.teachers
            sources = spec.learns_from or []
            for index, source in enumerate(sources):
                self._check_participant(f"{path}.learns_from[{index}]", name, source)
                if source in sources[:index]:
                    self._add(f"{path}.learns_from[{index}]", f"{source!r} is listed twice")
            if spec.follows is not None and self._check_participant(f"{path}.follows", name, spec.follows):
                followed = self.specs.get(spec.follows)
                if followed is not None and not followed.is_network:
                    self._add(f"{path}.follows", f"{spec.follows!r} has no network of its own to average")
            if spec.split in HELD_OUT:
                hint = "learn from 'train', or from a split that the protocol sets apart"
                self._add(f"{path}.split", f"{name!r} learns from the {spec.split} split, which is held out", hint)
            if spec.fill_missing and self.recipe.data.missing != "mask":
                self._add(f"{path}.fill_missing", "requires data.missing: mask", "other values drop these samples")
            if "*" in spec.freeze and not is_teacher:
                self._add(f"{path}.freeze", f"all of {name!r} is frozen, so a student has nothing to learn")
            if not spec.is_network and not is_teacher:
                self._add(path, f"a student must be a network, not {spec.described}", "list it under 'teachers'")
            if self.recipe.data.mix and spec.outputs is not None:
                what = f"the stored outputs of {name!r} are not those of mixed samples"
                self._add("data.mix", what, "leave out data.mix, or give the network of the teacher")

    def _check_participant(self, path: str, name: str, source: str, verb: str = "learn") -> bool:
        if source == name:
            self._add(path, f"{name!r} cannot {verb} from itself")
        elif source not in self.group_of:
            self._add(path, f"there is no participant {source!r}", did_you_mean(source, sorted(self.group_of), "participants"))
        return source in self.group_of and source != name

    def _fixed_networks(self) -> None:
        """Check that fixed networks are not trained, tapped, fused or given weights."""
        for name, spec in self.recipe.specs.items():
            if spec.encoder is None or not self._is_fixed(name):
                continue
            path, is_teacher = self.recipe.path_of(name), name in self.recipe.teachers
            what = f"the encoder {spec.encoder.name!r} is a fixed network"
            if not is_teacher:
                self._add(f"{path}.encoder", f"{what}, so a student has nothing to learn")
            elif "*" not in spec.freeze:
                self._add(f"{path}.freeze", f"{what}, which cannot be trained", 'set freeze: ["*"]')
            if spec.taps:
                self._add(f"{path}.taps", f"{what}, which has no modules to tap")
            if spec.weights:
                self._add(f"{path}.weights", f"{what}, which has its own weights")
            if self.recipe.fusion and is_teacher:
                self._add("fusion", f"{what}, which cannot be trained with other teachers by a fusion")

    def _objectives(self) -> None:
        """Check that the needs of each learner's terms are met. A problem of a term is reported once for all its learners."""
        learners_of: dict[tuple[str, str, str], list[str]] = {}
        for name, spec in self.specs.items():
            if not spec.is_network:
                continue
            path, terms = self.recipe.terms_of(name)
            if not terms and "*" not in spec.freeze:
                is_written = "." in path or path in self.tree
                self._add(path, "must not be empty" if is_written else f"the key {path!r} is missing")
            elif terms and not any(term.active for term in terms) and "*" not in spec.freeze:
                self._add(path, f"every term of {name!r} has weight 0; there is nothing to learn")
            for term in self.terms[name]:
                self._term_sources(term, name)
                if term.active:
                    for message, hint in (*self._unmet(term, name), *self._untapped(term, name), *self._mismatch(term, name)):
                        learners_of.setdefault((term.path, message, hint), []).append(name)
        for (path, message, hint), names in learners_of.items():
            message = message.replace("{learner}", " and ".join(map(repr, names)))
            self._add(path, message.replace("{learns}", "learn" if len(names) > 1 else "learns"), hint)

    def _term_sources(self, term: LearnerTerm, name: str) -> None:
        """Check the sources that a term names. One that does not exist is reported once, with the term's first learner."""
        path, sources = self.recipe.path_of(name), self.graph.nodes[name].learns_from
        is_own = term.path.startswith(path)
        for index, source in enumerate(term.term.teachers or ()):
            place = f"{term.path}.teachers[{index}]"
            if source not in self.group_of:
                if name == next(each for each, terms in self.terms.items() if any(own.path == term.path for own in terms)):
                    hint = did_you_mean(source, sorted(self.group_of), "participants")
                    self._add(place, f"there is no participant {source!r}", hint)
            elif source not in sources and source in self.specs and is_own:
                self._add(place, f"{name!r} does not learn from {source!r}", f"add it to {path}.learns_from")
            elif source in sources and source not in term.sources:
                what = f"the loss {term.loss!r} reads no {self._relation(name, source)}"
                self._add(place, f"{what}, so naming {source!r} has no effect")

    def _relation(self, name: str, source: str) -> str:
        return "peers" if source in peers_of(self.graph, name) else "teachers"

    def _unmet(self, term: LearnerTerm, name: str) -> Iterator[tuple[str, str]]:
        """Yield (problem, hint) for needs of a term other than taps."""
        needs, what = term.needs, f"the loss {term.loss!r}"
        if needs.class_embeddings and "class_embeddings" not in self.tree:
            yield f"{what} needs class embeddings, but the recipe has none", "add 'class_embeddings'"
        if needs.labelled and self.recipe.data.labels == "withheld" and name in self.recipe.student_specs:
            yield f"{what} reads labels, which are withheld from students", "leave it out, or set data.labels to 'given'"
        for each in (name, *term.sources) if needs.classifiers else ():
            if why := self._no_classifier(each):
                yield f"{what} reads the classifiers of networks, but {why}", "leave it out, or give a network of modules"
        if needs.forward_passes:
            if self.recipe.data.mix:
                yield f"{what} runs networks on inputs of its own, which data.mix does not mix", "leave out one of them"
            for each in (name, *(term.sources if needs.forward_passes == "all" else ())):
                if why := self._not_run_alone(each):
                    yield f"{what} runs networks on inputs of its own, but {why}", "leave it out, or give a network of its own"
        for minimum, count, role in ((needs.teachers, len(term.teachers), "teacher"), (needs.peers, len(term.peers), "peer")):
            if count < minimum and not self._has_invalid_source(name, "teachers" if role == "teacher" else "students"):
                message = f"{what} needs at least {minimum} {role}{'s' if minimum > 1 else ''}"
                yield f"{message}, but {{learner}} {{learns}} from {count or 'none'}", self._source_hint(term, name, role)

    def _source_hint(self, term: LearnerTerm, name: str, role: str) -> str:
        if term.term.teachers is not None:
            return "'teachers' of a term selects from its learner's sources"
        if role == "peer":
            return "peers are participants that learn from each other: name them in 'learns_from', or list several students"
        if peers := peers_of(self.graph, name):
            what = "is a peer" if len(peers) == 1 else "are peers"
            return f"{' and '.join(map(repr, peers))} {what}, trained together with it: use a loss that reads peers"
        return f"name some in {self.recipe.path_of(name)}.learns_from" if len(self.specs) > 1 else "add 'teachers'"

    def _has_invalid_source(self, name: str, group: str) -> bool:
        """Return whether a source of `name` is in the recipe but invalid, which is reported separately."""
        if not isinstance(self.tree.get(group, {}), Mapping):
            return True
        sources = self.specs[name].learns_from
        if sources is None:
            sources = [each for each, own in self.group_of.items() if own == group]
        return any(each not in self.specs for each in sources)

    def _untapped(self, term: LearnerTerm, name: str) -> Iterator[tuple[str, str]]:
        """Yield (problem, hint) for taps that a term needs and its participants do not have."""
        needs = term.needs
        for taps, participants in (
            (needs.student_taps, (name,)),
            (needs.teacher_taps, term.teachers),
            (needs.peer_taps, term.peers),
        ):
            for tap in dict.fromkeys(taps):
                untapped = [each for each in participants if tap not in self._taps(each) and self.specs[each].outputs is None]
                if untapped:
                    hint = did_you_mean(tap, sorted(self._taps(untapped[0])), "declared are")
                    participant = "{learner}" if untapped == [name] else " and ".join(map(repr, untapped))
                    yield f"the loss {term.loss!r} needs the tap {tap!r} of {participant}", hint

    def _taps(self, name: str) -> set[str]:
        """Return the taps of `name`, and those that the fusion adds to its outputs."""
        facts = self._facts("fusion") if self.recipe.fusion and name in self.graph.fused else None
        return {*self.specs[name].taps, *(facts.taps if facts else ())}

    def _mismatch(self, term: LearnerTerm, name: str) -> Iterator[tuple[str, str]]:
        """Yield (problem, hint) if a term does not support the target of the dataset."""
        facts = self.losses[term.path]
        if facts is not None and self.target is not None and self.graph.nodes[name].trains:
            yield from loss_problems(term.loss, facts, self.target, self.weighted, self.recipe.registry)

    def _not_run_alone(self, name: str) -> str:
        """Return why participant `name` has no network that can run on other inputs, or an empty string if it has."""
        if self.specs[name].outputs is not None:
            return f"{name!r} is a file of stored outputs"
        return f"{name!r} runs together with other teachers, through the fusion" if name in self.graph.fused else ""

    def _no_classifier(self, name: str) -> str:
        """Return why participant `name` has no classifier layer, or an empty string if it may have one."""
        if self.specs[name].outputs is not None:
            return f"{name!r} is a file of stored outputs"
        return f"the encoder of {name!r} is a fixed network" if self._is_fixed(name) else ""

    def _sources_of_weights(self) -> None:
        """Check `classifier_from` and `starts_from`."""
        for name, spec in self.recipe.specs.items():
            for key, source, verb, problem_with in (
                ("classifier_from", spec.classifier_from, "learn", self._classifier_problem),
                ("starts_from", spec.starts_from, "start", self._start_problem),
            ):
                path = f"{self.recipe.path_of(name)}.{key}"
                if source is not None and self._check_participant(path, name, source, verb) and source in self.specs:
                    message, hint = problem_with(name, source)
                    if message:
                        self._add(path, message, hint)

    def _classifier_problem(self, name: str, source: str) -> tuple[str, str]:
        """Return (problem, hint) unless `name` learns features of `source`, whose classifier is trained before it."""
        teacher = self.specs[source]
        if source in peers_of(self.graph, name):
            return f"{source!r} is trained together with {name!r}, so its classifier is not finished", ""
        if source not in self.graph.nodes[name].learns_from:
            hint = f"add it to {self.recipe.path_of(name)}.learns_from"
            return f"{name!r} does not learn from {source!r}, whose classifier it uses", hint
        if why := self._no_classifier(source):
            return f"{why}, which has no classifier that could be used", ""
        if teacher.follows is not None:
            return f"{source!r} is a moving average, so its classifier is not finished", ""
        if teacher.weights and teacher.weights.head == "drop" and "*" in teacher.freeze:
            return f"the classifier of {source!r} is neither loaded nor trained (head: drop, and all is frozen)", ""
        if not any(source in term.teachers for term in self.terms[name] if term.active):
            what = f"no term of {name!r} reads {source!r}, so its features are not those of this classifier"
            return what, "add a loss on features, such as one with the tap before the classifier"
        return "", ""

    def _start_problem(self, name: str, source: str) -> tuple[str, str]:
        """Return (problem, hint) unless `name` has the encoder of `source`, which is trained before it."""
        spec, other = self.specs[name], self.specs[source]
        if not other.is_network:
            return f"{source!r} is {other.described}, which has no trained weights of its own to start from", ""
        if source in self.graph.circle(name):
            what = f"{source!r} is trained together with {name!r}, so its weights are not finished"
            if other.learns_from is not None:
                return what, ""
            names = ", ".join(map(repr, self.graph.nodes[source].learns_from))
            return what, f"by default, {source!r} learns from {names}: set {self.recipe.path_of(source)}.learns_from"
        if spec.encoder and other.encoder and spec.encoder.name != other.encoder.name:
            what = f"the encoder of {name!r} is {spec.encoder.name!r}, and that of {source!r} is {other.encoder.name!r}"
            return what, "use the same encoder with the same sizes"
        readers = [each.name for each in self.graph.nodes.values() if name in each.learns_from]
        if not self.graph.nodes[name].trains and readers:
            what = f"{name!r} is a copy of {source!r} for evaluation after training, and {readers[0]!r} learns from it"
            return what, f"let {readers[0]!r} learn from {source!r}"
        if spec.freeze and self.recipe.baseline and self._in_baseline(name) and not self._in_baseline(source):
            what = f"without distillation {name!r} does not start from {source!r}, so what it freezes would never be trained"
            return what, "set baseline: false, or freeze nothing"
        return "", ""

    def _in_baseline(self, name: str) -> bool:
        """Return whether a student has a term without distillation, so that it is trained in the baseline."""
        has_term = any(term.active and term.needs.in_baseline for term in self.terms[name])
        return has_term and name not in self.recipe.teachers

    def _unread_sources(self) -> None:
        """Check that a term reads each source in `learns_from`."""
        for name, spec in self.specs.items():
            paths = self.recipe.term_paths(name)
            if not spec.is_network or any(self._needs(path) is None for path in paths):
                continue
            read = {source for term in self.terms[name] if term.active for source in term.sources}
            for index, source in enumerate(spec.learns_from or ()):
                if source in self.graph.nodes[name].learns_from and source not in read:
                    self._add(
                        f"{self.recipe.path_of(name)}.learns_from[{index}]",
                        f"no term of {name!r} reads {source!r}, so learning from it has no effect",
                        f"add a loss that reads {self._relation(name, source)} to the objective of {name!r}, "
                        f"or remove {source!r} here",
                    )

    def _schedule(self) -> None:
        path = "schedule" if self.recipe.schedule else ""
        try:
            stages = self._stages(self.graph)
        except (PluginError, ValueError) as error:
            self._add(path, str(error))
            return
        for what, hint in unread_training(self.recipe, self.graph, stages, self._stages):
            self._add("training", what, hint)
        for place, what, hint in metric_problems(self.recipe, self.target, stages):
            self._add(place, what, hint)
        for stage, what, hint in schedule_problems(self.recipe, self.graph, stages, self.terms) if stages else ():
            self._add(place_in_schedule(self.recipe, stage), what, hint)

    def _stages(self, graph: Graph) -> tuple[Stage, ...]:
        """Return the stages of the schedule, or none if it cannot be constructed, which is reported."""
        if not self.recipe.schedule:
            return tuple(default_stages(graph))
        if self._facts("schedule") is None:
            return ()
        return ask(*self.checked.usable["schedule",], stages_of, graph)
