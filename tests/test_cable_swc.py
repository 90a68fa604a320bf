"""Morphologies against NEURON's import3d, whose sections and areas are in the golden file.

To 1e-6: NEURON keeps points in float32.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.cable.tree import tree_of

ARRAYS = dict(np.load(Path(__file__).parent / "golden" / "cable.npz"))
INFO = json.loads(str(ARRAYS["info"]))
CASES = ("swc_single", "swc_threepoint", "swc_contour", "swc_interrupted")


@pytest.fixture
def read(tmp_path):
    """Reads a text as an SWC file."""

    def of(text: str) -> vb.cable.Morphology:
        (tmp_path / "cell.swc").write_text(text)
        return vb.cable.read_swc(tmp_path / "cell.swc")

    return of


@pytest.mark.parametrize("case", CASES)
def test_sections_are_those_of_neuron(case, read):
    """Number, order, lengths, areas, where they hang; then compartments and transfer impedances by every rule."""
    info = INFO[case]
    morphology = read(info["text"])
    found = morphology.sections
    assert [one.region for one in found] == [one["region"] for one in info["sections"]]
    assert [one.parent for one in found] == [one["parent"] for one in info["sections"]]
    assert [one.at for one in found[1:]] == [one["attached_at"] for one in info["sections"][1:]]
    np.testing.assert_allclose([one.length for one in found], ARRAYS[f"{case}__length"], rtol=1e-6)
    for rule in ("per_section", "max_length", "d_lambda"):
        comp = vb.cable.compartments(morphology, **{rule: info[rule]})
        np.testing.assert_array_equal(np.bincount(comp.section), ARRAYS[f"{case}__{rule}__n"])
        np.testing.assert_allclose(comp.area, ARRAYS[f"{case}__{rule}__area"], rtol=1e-6)
        np.testing.assert_allclose(np.bincount(comp.section, comp.area), ARRAYS[f"{case}__area"], rtol=1e-6)
        with jax.enable_x64(True):
            cell = vb.cable.Cell(comp, {"all": vb.cable.Leak(g=info["g"], e=info["e"])})
            middle = ARRAYS[f"{case}__{rule}__middle"]
            parts = cell.parts_now()
            into = jnp.zeros((comp.n, len(middle))).at[middle, jnp.arange(len(middle))].set(1.0)
            g = jnp.broadcast_to(parts.area[:, None] * info["g"], into.shape)
            Z = jax.jit(tree_of(comp).solve)(g, into, parts.resistance[:, None])[middle]
        np.testing.assert_allclose(Z, ARRAYS[f"{case}__{rule}__Z_between_section_middles"], rtol=1e-6)
        assert sorted(np.concatenate(list(comp.regions.values())).tolist()) == list(range(comp.n))


def test_coarser_has_a_compartment_per_section_and_the_same_area(read):
    comp = vb.cable.compartments(read(INFO["swc_contour"]["text"]), max_length=5.0)
    coarse = comp.coarser()
    assert coarse.n == 6
    assert list(coarse.regions) == list(comp.regions)
    np.testing.assert_allclose(coarse.area, ARRAYS["swc_contour__area"], rtol=1e-6)


def test_sites_are_positions_on_sections(read):
    comp = vb.cable.compartments(read(INFO["swc_single"]["text"]), per_section=3)
    assert [comp.site("soma", x) for x in (0.0, 0.5, 1.0)] == [0, 1, 2]
    assert comp.site("apic") == 7
    assert comp.site("dend", 1.0, section=2) == 14
    assert comp.distance[7] == pytest.approx(comp.distance[6] + comp.length[7])
    with pytest.raises(ValueError, match="region 'dend' has 3"):
        comp.site("dend", section=3)


LINES = "1 1 0 0 0 5 -1\n2 3 0 9 0 1 1\n3 3 0 30 0 1 2\n"
MISTAKES = {
    "two roots": (LINES + "4 3 0 50 0 1 -1\n", r"2 roots \(1, 4\)"),
    "cycle": (LINES + "4 3 0 50 0 1 5\n5 3 0 60 0 1 4\n", "point 4 is its own ancestor"),
    "no root": ("1 1 0 0 0 5 2\n2 3 0 9 0 1 1\n", "0 roots"),
    "zero radius": (LINES + "4 3 0 50 0 0 3\n", "line 4: radius 0"),
    "no such parent": (LINES + "4 3 0 50 0 1 9\n", "line 4: parent 9"),
    "number twice": (LINES + "3 3 0 50 0 1 2\n", "point 3 occurs twice"),
    "words": (LINES + "4 3 0 x 0 1 3\n", "line 4: .* no number"),
    "short": (LINES + "4 3 0\n", "line 4: .* expected: number type"),
    "empty": ("# nothing\n", "no point"),
    "no length": (LINES + "4 4 0 30 0 1 3\n", "no length"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_broken_files_are_refused_with_the_line(mistake, read):
    text, words = MISTAKES[mistake]
    with pytest.raises(ValueError, match=words):
        read(text)


def test_other_types_are_regions_with_a_warning(read):
    with pytest.warns(UserWarning, match=r"2 points are of types \[7\].*type_7"):
        morphology = read(LINES + "4 7 0 50 0 1 3\n5 7 0 60 0 1 4\n")
    comp = vb.cable.compartments(morphology, per_section=2)
    assert {name: len(at) for name, at in comp.regions.items()} == {"soma": 2, "dend": 2, "type_7": 2}


def test_one_rule_cuts_a_morphology(read):
    for rules in ({}, {"max_length": 5.0, "per_section": 2}):
        with pytest.raises(ValueError, match="give one of max_length"):
            vb.cable.compartments(read(LINES), **rules)
    assert vb.cable.compartments(read(LINES), max_length=10.5).n == 3  # a soma of 10, a dendrite of 21 um


def test_the_bundled_cell_is_that_of_neuron():
    """Sections, compartments of at most 20 um, length and area of each region, from NEURON 9.0.2's import3d."""
    comp = vb.cable.compartments(vb.load_morphology("ca1-pyramidal"), max_length=20.0)
    neuron = {
        "soma": (1, 1, 8.933879852294922, 250.74373332268033),
        "axon": (3, 12, 214.9285563680242, 504.0823884511261),
        "dend": (83, 235, 3745.0176674468757, 7441.1985307970135),
        "apic": (133, 374, 5990.744867170681, 11526.1266475597),
    }
    assert comp.regions.keys() == neuron.keys()
    for name, index in comp.regions.items():
        found = (len(set(comp.section[index])), len(index), comp.length[index].sum(), comp.area[index].sum())
        np.testing.assert_allclose(found, neuron[name], rtol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"no morphology of that name. Did you mean 'ca1-pyramidal'"):
        vb.load_morphology("ca1-pyramid")


def _ends(lines):
    return [line[[0, -1]].tolist() for line in lines.get_segments()]


def test_a_drawing_has_one_line_per_compartment_where_the_file_puts_it(read):
    import matplotlib as mpl

    mpl.use("Agg")
    text = "1 1 0 0 0 5 -1\n2 3 0 5 0 1 1\n3 3 40 35 0 1 2\n4 4 0 -5 0 2 1\n5 4 0 -65 9 2 4\n"
    comp = vb.cable.compartments(read(text), per_section=2)
    ax = vb.cable.plot(comp, values := [3.0, 1.0, 4.0, 1.0, 5.0, 9.0], label="mV")
    lines = ax.collections[0]
    ends = np.array(_ends(lines))
    np.testing.assert_allclose(ends[:2], [[[0, -5], [0, 0]], [[0, 0], [0, 5]]])
    np.testing.assert_allclose(ends[comp.regions["dend"]], [[[0, 5], [20, 20]], [[20, 20], [40, 35]]])
    np.testing.assert_allclose(ends[comp.regions["apic"]], [[[0, -5], [0, -35]], [[0, -35], [0, -65]]])
    np.testing.assert_allclose(lines.get_array(), values)
    with pytest.raises(ValueError, match=r"values has shape \[5\]; expected \[6\], one per compartment"):
        vb.cable.plot(comp, values[:5])


def test_without_coordinates_a_tree_is_drawn_tips_apart_parents_between():
    part = {"radius": 1.0, "region": "dend"}
    trunk, tips = {"length": 100.0, "parent": None} | part, [{"length": x, "parent": 0} | part for x in (30.0, 70.0)]
    ends = _ends(vb.cable.plot(vb.cable.sections([trunk, *tips])).collections[0])
    assert ends == [[[0, 0.5], [100, 0.5]], [[100, 0.5], [130, 0]], [[100, 0.5], [170, 1]]]
