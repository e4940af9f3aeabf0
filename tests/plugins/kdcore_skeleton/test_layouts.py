"""Skeleton layouts."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest
from pydantic import TypeAdapter, ValidationError
from torch_geometric.utils import to_networkx

from kdcore import Modality
from kdcore_skeleton.layout import Layout
from kdcore_skeleton.layouts import AXES, LAYOUTS, find_layout, layout_of, require_skeleton

SIZES = {name: int(name.rsplit("-", 1)[1]) for name in LAYOUTS}
SMPL_PARENTS = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
"""Of joints 1 to 23, in the published kinematic tree."""


def test_published_orders():
    """Edges of SMPL's kinematic tree, and the positions of some joints in the documentation of each estimator."""
    published = {frozenset((child, parent)) for child, parent in enumerate(SMPL_PARENTS, start=1)}
    assert {frozenset(link) for link in LAYOUTS["smpl-24"].links.tolist()} == published
    places = {
        "mediapipe-33": {"nose": 0, "left-ear": 7, "left-shoulder": 11, "right-index": 20, "left-hip": 23, "right-foot": 32},
        "halpe-26": {"left-shoulder": 5, "right-ankle": 16, "head": 17, "neck": 18, "hip-centre": 19, "right-heel": 25},
        "h36m-17": {"right-hip": 1, "left-hip": 4, "spine": 7, "neck": 9, "left-shoulder": 11, "right-wrist": 16},
        "kinect-v1-20": {"hip-centre": 0, "head": 3, "left-shoulder": 4, "right-hand": 11, "left-hip": 12, "right-foot": 19},
    }
    for name, joints in places.items():
        assert {joint: LAYOUTS[name].index(joint) for joint in joints} == joints


SKELETON = Modality("skeleton", ("time", "joint", "channel", "person"), AXES, "m", channels=("x", "y", "z"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_is_a_tree_whose_bones_lead_to_the_root(name):
    layout = LAYOUTS[name]
    assert len(layout) == SIZES[name] == layout.graph().num_nodes
    assert nx.is_tree(to_networkx(layout.graph(), to_undirected=True))
    parents = dict(layout.bones.tolist())
    assert set(parents) == set(range(len(layout))) - {layout.index(layout.root or layout.centre)}
    assert {frozenset(bone) for bone in layout.bones.tolist()} == {frozenset(link) for link in layout.links.tolist()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_left_and_right_are_mirror_images(name):
    layout = LAYOUTS[name]
    swap = {**dict(layout.pairs.tolist()), **{right: left for left, right in layout.pairs.tolist()}}
    mirrored = {frozenset(swap.get(end, end) for end in link) for link in layout.links.tolist()}
    sides = sum(joint.startswith(("left-", "right-")) for joint in layout.joints)
    assert mirrored == {frozenset(link) for link in layout.links.tolist()}
    assert len(swap) == sides >= 12


def test_utd_mhad_order_is_the_recorded_one(recordings):
    lines = (recordings / "utd-mhad" / "Skeleton" / "Skeleton_joint_order.txt").read_text().splitlines()
    recorded = [line.split(".")[1].strip(" ;.") for line in lines if line[:1].isdigit()]
    ours = [name.replace("-", "_").replace("centre", "center") for name in LAYOUTS["utd-mhad-20"].joints]
    assert ours == recorded


@pytest.mark.parametrize(("key", "name"), [("ntu25", "ntu-25"), ("kinetics18", "openpose-18")])
def test_bones_equal_published_pairs(golden, key, name):
    published = {
        (child, parent) for child, parent in golden("c_adjacency")[f"bone.{key}.pairs_0based"].tolist() if child != parent
    }
    assert set(map(tuple, LAYOUTS[name].bones.tolist())) == published


def test_own_layout_may_have_cycles_and_edges_in_any_direction():
    layout = Layout(("a", "b", "c", "d"), (("a", "b"), ("c", "b"), ("c", "d"), ("a", "d")), centre="a")
    assert dict(layout.bones.tolist()).keys() == {1, 2, 3}
    assert {tuple(edge) for edge in layout.inward.tolist()} == {(1, 0), (2, 1), (2, 3), (3, 0)}


def test_recipe_may_spell_a_layout_out():
    options = {"joints": ["left-hand", "chest"], "edges": [["left-hand", "chest"]], "centre": "chest"}
    read = TypeAdapter(Layout).validate_python(options)
    assert read == find_layout(read)
    assert find_layout(options).bones.tolist() == [[0, 1]]
    with pytest.raises(ValidationError, match="did you mean 'chest'"):
        TypeAdapter(Layout).validate_python({**options, "centre": "chset"})
    with pytest.raises(ValidationError, match="center"):
        TypeAdapter(Layout).validate_python({**options, "center": "chest"})


@pytest.mark.parametrize(
    ("joints", "edges", "message"),
    [(("a", "a"), (("a", "a"),), "different names"), (("a", "b", "c"), (("a", "b"),), "connect all")],
)
def test_refuses_a_skeleton_that_is_none(joints, edges, message):
    with pytest.raises(ValueError, match=message):
        Layout(joints, edges, centre="a")


def test_joints_may_be_numbers():
    numbered = TypeAdapter(Layout).validate_python({"joints": 3, "edges": [[0, 1], [1, 2]], "centre": 0})
    assert numbered.names == ("0", "1", "2")
    assert numbered.bones.tolist() == [[1, 0], [2, 1]]
    mixed = Layout(("a", "b", "c"), (("a", 1), (1, 2)), centre=0)
    assert mixed.inward.tolist() == numbered.inward.tolist()
    for wrong in ((0, 3), (-1, 1)):
        with pytest.raises(ValueError, match="joints 0 to 2"):
            Layout(3, ((0, 1), wrong), centre=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"edges": [[0, 1.5]] * 20 + [[1, None]]}, r"edges\n.*pairs of joints.*entry 0 is \[0, 1.5\]"),
        ({"edges": [[0, 1], [0, 1, 2]]}, r"edges\n.*entry 1 is \[0, 1, 2\]"),
        ({"edges": 7}, r"edges\n.*pairs of joints.*not 7"),
        ({"joints": ["a", 2, 3]}, r"joints\n.*names, or their number.*"),
    ],
)
def test_a_wrong_list_is_one_problem(wrong, said):
    with pytest.raises(ValidationError, match=said) as error:
        TypeAdapter(Layout).validate_python({"joints": 3, "edges": [[0, 1], [1, 2]], "centre": 0, **wrong})
    assert error.value.error_count() == 1


def test_an_input_must_be_a_skeleton_with_the_layouts_joints():
    with pytest.raises(ValueError, match=r"known: utd-mhad-20, .*ntu-25"):
        find_layout("ntu25")
    with pytest.raises(ValueError, match=r"25 joints, but its layout has 20"):
        require_skeleton((3, 64, 25, 1), LAYOUTS["utd-mhad-20"])
    with pytest.raises(ValueError, match="not a tensor of shape"):
        require_skeleton((3, 64), LAYOUTS["utd-mhad-20"])
    with pytest.raises(ValueError, match="with axes channel, joint, time, person"):
        require_skeleton((3, 64, 20, 1), None, replace(SKELETON, layout=("channel", "joint", "time", "person")))


def recorded(skeleton):
    return SKELETON.renamed("skeleton", skeleton=skeleton)


ARM = {"joints": 3, "edges": [[0, 1], [1, 2]], "centre": 0}


@pytest.mark.parametrize(
    ("skeleton", "option", "expected"),
    [
        ("nucla-20", None, "nucla-20"),
        ("nucla-20", "nucla-20", "nucla-20"),
        ("", "ntu-25", "ntu-25"),
        (ARM, None, Layout(3, ((0, 1), (1, 2)), 0)),
        (ARM, Layout(("a", "b", "c"), (("a", "b"), ("a", "c")), "b"), Layout(("a", "b", "c"), (("a", "b"), ("a", "c")), "b")),
        ("berkeley-mhad", Layout(**ARM), Layout(**ARM)),
    ],
)
def test_the_datasets_layout_is_taken(skeleton, option, expected):
    assert layout_of(recorded(skeleton), option) == find_layout(expected)


@pytest.mark.parametrize(
    ("skeleton", "option", "said"),
    [
        ("nucla-20", "utd-mhad-20", "'utd-mhad-20', but the dataset's skeleton is 'nucla-20'"),  # both have 20 joints
        ("", None, "set `layout`, or the dataset's `skeleton`"),
        ("berkeley-mhad", None, "no skeleton layout 'berkeley-mhad'"),
        ({"joint": 3, "centre": 0}, None, "the dataset's `skeleton`: joints: .*; edges: .*; joint: "),
        ({**ARM, "edges": [[0, 1, 2]]}, None, "the dataset's `skeleton`: edges: must be pairs of joints, .* entry 0 is"),
        ({**ARM, "centre": 3}, None, "the dataset's `skeleton`: the skeleton has joints 0 to 2, not 3"),
        ("berkeley-mhad", "ntu-25", "'ntu-25', but the dataset's skeleton is 'berkeley-mhad'"),
        ("ntu-25", Layout(**ARM), "spells out other joints, but the dataset's skeleton is 'ntu-25'"),
    ],
)
def test_an_unknown_layout_and_a_contradiction_are_refused(skeleton, option, said):
    with pytest.raises(ValueError, match=said):
        layout_of(recorded(skeleton), option)


@pytest.mark.parametrize("name", LAYOUTS)
def test_edges_point_inwards_by_shortest_paths(name):
    layout = LAYOUTS[name]
    graph = nx.Graph(layout.links.tolist())
    steps = nx.single_source_shortest_path_length(graph, layout.index(layout.centre))
    assert all(steps[one] == steps[other] + 1 for one, other in layout.inward.tolist())
