"""Neurons with a shape: one model of compartments and channels."""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import NAMED, AbstractLaw, Param, did_you_mean, is_traced, param, paths, spread
from vbinfer.cable import schemes
from vbinfer.cable.channels.base import REST, AbstractChannel, AbstractMechanism, AbstractPool, AbstractReversal
from vbinfer.cable.channels.rates import expm1
from vbinfer.cable.clamp import Clamp
from vbinfer.cable.events import SpikeTrain
from vbinfer.cable.geometry import Compartments
from vbinfer.cable.join import join
from vbinfer.cable.place import Place
from vbinfer.cable.receptors.base import AbstractReceptor, Lead
from vbinfer.cable.rest import resting
from vbinfer.cable.tree import tree_of
from vbinfer.models.base import AbstractStepper, couples, state_class
from vbinfer.stimuli import AbstractStimulus

NF_PER_UF_CM2 = 1e-5
"""nF of a um2 at 1 uF/cm2."""
US_PER_S_CM2 = 1e-2
"""uS of a um2 at 1 S/cm2."""
MOHM_PER_LOAD = 1e-2
"""MOhm of 1 Ohm cm over 1/um."""
STAGGERED_BOUND = 50.0
"""G dt/C beyond which Crank-Nicolson rings."""
MOST_CURRENT = 1000.0
"""nA beyond which a stimulus is likely to be meant in pA."""
CALCIUM_ROUNDS = 12
"""Rounds in which calcium and its current come to terms at rest."""
HELD = 1e12
"""Conductance that holds a clamped voltage, in units of that of its compartment."""


class Mechanism(NamedTuple):
    """A channel in a region."""

    region: str
    label: str
    place: Place
    gates: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """State variables of its gates."""
        return tuple(f"{self.region}_{self.label}_{gate}" for gate in self.gates)


class Assembled(eqx.Module):
    """What steps of a cell share."""

    scheme: Callable[[schemes.Moment], schemes.Moved] = eqx.field(static=True)

    capacitance: Array
    """nF, `[n]`, `[n, 1]` or `[n, B]`."""
    area: Array
    """uS at 1 S/cm2, likewise."""
    resistance: Array
    """MOhm of every edge."""


class Cell(AbstractStepper):
    """A neuron of compartments with channels.

        C dV_i/dt = -sum_channels area_i g (V_i - E) + sum_j (V_j - V_i) / R_ij + u + synapses + noise

    Nodes are sites, where stimuli (nA), synapses, recordings and clamps touch the cell: N is their number. The state
    variables are `V` (every compartment), `<region>_<channel>_<gate>` (every compartment of the region), those of
    receptors, `spike` and, with a clamped voltage, `i_clamp` (every site). Monitors see all of them at the sites; a
    gate at a site outside its region is NaN.

    Parameters are `model.<region>.<channel>.<parameter>`, a number or one per compartment of the region,
    `model.capacitance`, `model.axial_resistivity`, `model.radius_scale`: s multiplies areas by s and axial conductances
    by s^2.

    `integrator=vb.Native(dt)` is the staggered Crank-Nicolson scheme, second order whatever the gates start from: they
    live at t - dt/2, where they are recorded, and go half a step in the first one. Gates start in their steady state at
    `v_init`. Also `vb.cable.BackwardEuler`, `ForwardEuler`, `ExponentialEuler`. Noise acts on `V`:
    `vb.noise.Additive(sigma={"V": 0.5})`, as a current spread over the step.

    Args:
        comp: its compartments.
        channels: region, or "all", to a channel or several.
        capacitance: uF/cm2; a number or one per compartment.
        axial_resistivity: Ohm cm.
        radius_scale: factor of all radii.
        v_init: mV, at time zero.
        settle: "rest" starts where the cell rests, found by Newton's method in place of simulated time.
        sites: names and compartments of the nodes; "all" makes every compartment one.
        receptors: name to receptor; row k of the coupling input drives receptor k.
        events: name to `SpikeTrain`, given input of receptors.
        threshold: mV; crossing it upwards is a spike.
        cvar: what is sent: `("spike",)` 1 in the step of a spike, `("V",)` the voltage.
        clamps: see `Clamp`.

    Raises:
        ValueError: a region without compartments, a channel named twice in one, a site outside, a clamp of what there
            is not.

    >>> import vbinfer as vb
    >>> cell = vb.cable.Cell(vb.cable.single(length=20.0, radius=10.0), {"soma": vb.cable.HH()})
    >>> sim = vb.Simulator(cell, integrator=vb.Native(dt=0.025), stimulus=vb.stimuli.Pulse(5.0, 30.0, 0.1))
    >>> float(vb.simulate(sim, t1=10.0, key=None).ys["raw"]["V"].max().round())
    40.0
    """

    comp: Compartments = eqx.field(static=True)
    channels: dict[str, dict[str, AbstractMechanism]] = eqx.field(metadata=NAMED)
    mechanisms: tuple[Mechanism, ...] = eqx.field(static=True)
    """In order: JAX gives mappings back sorted by key."""
    receptors: dict[str, AbstractReceptor]
    rows_of: tuple[str, ...] = eqx.field(static=True)
    """Receptors in order, those that are driven in that of the rows of the coupling input."""
    events: dict[str, SpikeTrain]
    clamps: dict[str, Clamp]
    held: tuple[tuple[str, str, int], ...] = eqx.field(static=True)
    """Key, state variable and site of every clamp."""
    settle: Literal["rest"] | None = eqx.field(static=True)
    labels: tuple[str, ...] | None = eqx.field(static=True)
    sites: Place = eqx.field(static=True)
    parts: Assembled | None
    """None before a run."""
    capacitance: Param = param(unit="uF/cm2", low=1e-9, doc="of the membrane")
    axial_resistivity: Param = param(unit="Ohm cm", low=1e-9, doc="of the cytoplasm")
    radius_scale: Param = param(low=1e-9, doc="factor of all radii")
    v_init: Param = param(unit="mV", doc="potential at time zero")
    threshold: Param = param(unit="mV", doc="crossed upwards by a spike")
    cvar: tuple[str, ...] = couples("spike")
    input_stage = 0.5

    def __init__(
        self,
        comp: Compartments,
        channels: Mapping[str, Any],
        *,
        capacitance: Any = 1.0,
        axial_resistivity: Any = 100.0,
        radius_scale: Any = 1.0,
        v_init: Any = -65.0,
        settle: Literal["rest"] | None = None,
        sites: Any = "all",
        receptors: Mapping[str, AbstractReceptor] | None = None,
        events: Mapping[str, SpikeTrain] | None = None,
        threshold: Any = -20.0,
        cvar: tuple[str, ...] = ("spike",),
        clamps: tuple[Clamp, ...] = (),
    ):
        if not isinstance(comp, Compartments):
            raise TypeError(f"Cell was given {comp!r}; expected compartments, vb.cable.single(length=10.0, radius=1.0)")
        self.comp = comp
        self.channels, self.mechanisms = _channels(comp, channels)
        self.capacitance, self.axial_resistivity, self.radius_scale = capacitance, axial_resistivity, radius_scale
        self.v_init, self.threshold, self.cvar = v_init, threshold, cvar
        self.settle = _check.one_of(settle, "settle", (None, "rest"))
        self.labels, self.sites = _sites(comp, sites)
        self.receptors, self.rows_of = _receptors(receptors or {}), tuple(receptors or {})
        self.events = self._events(events or {})
        self.clamps, self.held = self._clamps(clamps)
        self.parts = None

    # ---- what the simulator asks

    @property
    def n_nodes(self) -> int:
        return len(self.sites)

    @property
    def rows(self) -> int:
        return sum(self.receptors[name].driven for name in self.rows_of)

    @property
    def State(self) -> Any:
        return state_class(tuple(self.shapes(self.n_nodes)))

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        shapes = {"V": (self.comp.n,)}
        shapes |= {v: (len(one.place),) for one in self.mechanisms for v in one.variables}
        shapes |= {f"{name}_{s}": (n,) for name in self.rows_of for s in self.receptors[name].states}
        return shapes | dict.fromkeys(("spike", "i_clamp") if self._clamped("V") else ("spike",), (n,))

    def leaf_size(self, path: str, n: int) -> int:
        parts = path.split(".")
        if parts[0] in ("capacitance", "axial_resistivity", "radius_scale", "v_init"):
            return self.comp.n
        if parts[0] in ("threshold", "receptors"):
            return n
        if parts[0] in ("clamps", "events") or len(parts) > 3:  # a signal; the coefficient of a distance law
            return 1
        return next(len(one.place) for one in self.mechanisms if [one.region, one.label] == parts[:2])

    def init(self, n: int) -> Any:
        """Gates in the steady state of `v_init`, or at rest."""
        if self.settle == "rest":
            return self.rest()
        V = jnp.broadcast_to(self.v_init, (self.comp.n,)).astype(jnp.result_type(float))
        return self._state(V, self.steady(V))

    def rest(self) -> Any:
        """The state in which the cell rests, without input.

        Found by Newton's method through steps of implicit Euler that grow; derivatives are those of the solution.
        """
        V = resting(self)
        return self._state(V, self.settled(V))

    def repeat(self, n: int) -> "Cell":
        """n of these cells as one model, see `join`."""
        return join([self] * _check.count(n, "n", 10))

    def at_nodes(self, x: Any) -> dict[str, Array]:
        shown = {"V": self.sites.take(x.V)}
        for one in self.mechanisms:
            where = np.full(self.comp.n, -1)
            where[one.place.index] = np.arange(len(one.place))
            at = where[self.sites.index]
            for name in one.variables:
                a = getattr(x, name)
                shown[name] = a if np.array_equal(at, np.arange(len(a))) else _elsewhere_nan(a, at)
        return shown | {name: a for name, a in x._asdict().items() if name not in shown}

    # ---- steps

    def prepared(self, dt: float) -> "Cell":
        return self.assembled(schemes.staggered)

    def assembled(self, scheme: Callable[[schemes.Moment], schemes.Moved]) -> "Cell":
        """The cell ready for steps of a scheme."""
        return eqx.tree_at(lambda c: c.parts, self, self.parts_now(scheme), is_leaf=lambda leaf: leaf is None)

    def parts_now(self, scheme: Callable[[schemes.Moment], schemes.Moved] = schemes.staggered) -> Assembled:
        """Capacitances and conductances from geometry."""
        leaves = (self.capacitance, self.axial_resistivity, self.radius_scale)
        dtype = jnp.result_type(float)
        ranked = any(leaf.ndim == 2 for leaf in leaves)  # in a batch

        def column(a: np.ndarray) -> Array:
            return jnp.asarray(a[:, None] if ranked else a, dtype)

        def rows(leaf: Array, index: np.ndarray) -> Array:
            return leaf[index] if leaf.ndim and len(leaf) > 1 else leaf

        area = column(self.comp.area) * self.radius_scale
        edge, i, load = tree_of(self.comp).halves
        half = column(MOHM_PER_LOAD * load) * rows(self.axial_resistivity, i) / rows(self.radius_scale, i) ** 2
        edges = jnp.zeros((len(tree_of(self.comp).pairs), *half.shape[1:]), dtype).at[edge].add(half)
        return Assembled(scheme, NF_PER_UF_CM2 * self.capacitance * area, US_PER_S_CM2 * area, edges)

    def step(self, t: Array, x: Any, c: Array, u: Array, dW: Any, dt: float) -> Any:
        assert self.parts is not None
        V, gates, receptors = self._split(x)
        V, gates = self._hold(t, V, gates)
        parts = jax.tree.map(lambda a: spread(a, V), self.parts)
        tree, R = tree_of(self.comp), parts.resistance
        given = self.sites.put(jnp.broadcast_to(u, (self.n_nodes, *V.shape[1:])))
        if dW is not None:
            given = given + parts.capacitance / dt * self._force(x, dW)
        moved = parts.scheme(
            schemes.Moment(
                t,
                dt,
                V,
                gates,
                parts.capacitance,
                lambda gates, V, h: self._hold(t, V, self.relaxed(gates, V, h))[1],
                self.pooled,
                functools.partial(self.membrane, area=parts.area),
                functools.partial(self._synapses, receptors, self._arriving(t, dt, c), V),
                lambda V: tree.axial(V, R),
                lambda: tree.leaving(V, R),
                lambda e, b: tree.solve(*self._pinned(e, b, V, t + dt), R),
                given,
            )
        )
        after, gates = self._hold(t + dt, moved.V, moved.gates)
        crossed = (self.sites.take(V) < spread(self.threshold, V)) & (
            self.sites.take(after) >= spread(self.threshold, V)
        )
        ends = [crossed.astype(V.dtype)]
        if held := self._clamped("V"):
            held = np.array(held)
            shown = jnp.zeros((self.n_nodes, *V.shape[1:]), V.dtype)
            ends.append(shown.at[held].set(self.sites.take(moved.missing)[held]))
        values = (one[g] for one in gates for g in one)
        return self.State(after, *values, *(s for states in moved.synapses for s in states), *ends)

    # ---- the equations

    def _resolved(self, one: Mechanism, like: Array) -> Any:
        """The channel of a mechanism, its parameters shaped as `like`."""
        distance = self.comp.distance[one.place.index]

        def value(leaf: Any) -> Any:
            return leaf.value(distance, like) if isinstance(leaf, AbstractLaw) else spread(leaf, like)

        channel = self.channels[one.region][one.label]
        return jax.tree.map(value, channel, is_leaf=lambda leaf: isinstance(leaf, AbstractLaw))

    def _each(self, kind: type, V: Array) -> Iterator[tuple[int, Mechanism, Any, Array]]:
        """Mechanisms of a kind.

        Number, place, resolved self and voltage of each.
        """
        for k, one in enumerate(self.mechanisms):
            if isinstance(self.channels[one.region][one.label], kind):
                here = one.place.take(V)
                yield k, one, self._resolved(one, here), here

    def steady(self, V: Array) -> tuple[dict[str, Array], ...]:
        """Gates in their steady state, calcium without its current."""
        empty: list[dict[str, Array]] = [{} for _ in self.mechanisms]
        for k, one, pool, here in self._each(AbstractPool, V):
            empty[k] = {one.gates[0]: pool.initial(here)}
        return self._with_gates(V, empty)

    def settled(self, V: Array) -> tuple[dict[str, Array], ...]:
        """Gates in their steady state, calcium with its current.

        By iteration, for the two depend on each other.
        """
        gates = self.steady(V)
        if not any(True for _ in self._each(AbstractPool, V)):
            return gates
        for _ in range(CALCIUM_ROUNDS):
            gates = self._with_gates(V, list(self.pooled(gates, gates, V, jnp.inf)))
        return gates

    def _with_gates(self, V: Array, gates: list[dict[str, Array]]) -> tuple[dict[str, Array], ...]:
        """Gates of channels in their steady state beside given concentrations."""
        ca = self._calcium(gates, V)
        for k, one, channel, here in self._each(AbstractChannel, V):
            rates = channel.rates(here, one.place.take(ca)).items()
            gates[k] = {gate: jnp.broadcast_to(x, here.shape) for gate, (x, _) in rates}
        return tuple(gates)

    def relaxed(self, gates: tuple[Any, ...], V: Array, h: Any) -> tuple[dict[str, Array], ...]:
        """Gates h ms later at this voltage.

        Exact, since each is linear in itself.
        """
        new, ca = list(gates), self._calcium(gates, V)
        for k, one, channel, here in self._each(AbstractChannel, V):
            rates = channel.rates(here, one.place.take(ca))
            new[k] = {g: x + (rates[g][0] - x) * -expm1(-h / rates[g][1]) for g, x in gates[k].items()}
        return tuple(new)

    def pooled(self, gates: tuple[Any, ...], at: tuple[Any, ...], V: Array, h: Any) -> tuple[dict[str, Array], ...]:
        """Concentrations h ms later.

        The current is what `at` lets through at this voltage.
        """
        new, i = list(gates), None
        for k, one, pool, _ in self._each(AbstractPool, V):
            i = self._calcium_current(at, V) if i is None else i
            ((ion, x),) = gates[k].items()
            steady, tau = pool.rates(one.place.take(i))
            new[k] = {ion: x + (steady - x) * -expm1(-h / jnp.asarray(tau))}
        return tuple(new)

    def _calcium(self, gates: Any, V: Array) -> Array:
        """Calcium inside, mM, `[n, ...batch]`."""
        ca = jnp.full_like(V, REST)
        for k, one, _, _ in self._each(AbstractPool, V):
            ca = ca + one.place.put(gates[k][one.gates[0]] - REST)
        return ca

    def _currents(self, gates: tuple[Any, ...], V: Array) -> Iterator[tuple[Mechanism, Any, Array, list[Any]]]:
        """Conductance and reversal potential of every channel.

        Of calcium the reversal potential is that of its concentration.
        """
        ca, follows, e = None, np.zeros(self.comp.n, bool), jnp.zeros_like(V)
        for _, one, reversal, _ in self._each(AbstractReversal, V):
            ca = self._calcium(gates, V) if ca is None else ca
            follows[one.place.index] = True
            e = e + one.place.put(reversal.potential(one.place.take(ca)))
        for k, one, channel, here in self._each(AbstractChannel, V):
            pairs = list(channel.currents(here, gates[k]))
            if type(channel).carries == "ca" and (own := follows[one.place.index]).any():
                set_here = own.reshape(-1, *(1,) * (here.ndim - 1))
                pairs = [(g, jnp.where(set_here, one.place.take(e), fixed)) for g, fixed in pairs]
            yield one, channel, here, pairs

    def _calcium_current(self, gates: tuple[Any, ...], V: Array) -> Array:
        """mA/cm2 outward, `[n, ...batch]`."""
        i = jnp.zeros_like(V)
        for one, channel, here, pairs in self._currents(gates, V):
            if type(channel).carries == "ca":
                i = i + one.place.put(jnp.broadcast_to(sum(g * (here - e) for g, e in pairs), here.shape))
        return i

    def membrane(self, V: Array, gates: tuple[Any, ...], area: Array) -> tuple[Array, Array]:
        """Conductance (uS) and inward current (nA) of all channels.

        The conductance is -dI/dV, which also sees gates that follow the voltage at once, as that of `CaT`.
        """

        def inwards(V: Array) -> Array:
            i = jnp.zeros_like(V)
            for one, _, here, pairs in self._currents(gates, V):
                i = i + one.place.put(jnp.broadcast_to(sum(g * (e - here) for g, e in pairs), here.shape))
            return i

        i, slope = jax.jvp(inwards, (V,), (jnp.ones_like(V),))
        return -area * slope, area * i

    def _synapses(
        self, states: Any, c: list[Array], V: Array, lead: Lead
    ) -> tuple[Array, Array, list[tuple[Array, ...]]]:
        """Conductance, current and new states of all receptors."""
        here, new = self.sites.take(V), []
        g, i = jnp.zeros_like(here), jnp.zeros_like(here)
        for name, own, row in zip(self.rows_of, states, c, strict=True):
            receptor = jax.tree.map(
                lambda leaf: leaf if isinstance(leaf, AbstractStimulus) else spread(leaf, here),
                self.receptors[name],
                is_leaf=lambda leaf: isinstance(leaf, AbstractStimulus),
            )
            g_k, i_k, after = receptor.advance(own, row, here, lead)
            g, i = g + g_k, i + i_k
            new.append(after)
        if not new:
            return jnp.zeros_like(V), jnp.zeros_like(V), new
        return self.sites.put(g), self.sites.put(i), new

    def _arriving(self, t: Array, dt: float, c: Array) -> list[Array]:
        """What arrives at every receptor.

        That is its row of the coupling input, and given events.
        """
        rows, received = iter(c), []
        for name in self.rows_of:
            row = next(rows) if self.receptors[name].driven else jnp.zeros_like(c[0])
            for train in self.events.values():
                if train.receptor == name:
                    row = row.at[self.site_number(train.at)].add(train.arriving(t, dt))
            received.append(row)
        return received

    def _force(self, x: Any, dW: Any) -> Array:
        """The noise increment of V; there is no other."""
        for name, kick in dW._asdict().items():
            if name != "V" and kick.ndim:
                raise ValueError(f'noise drives {name!r}; cells take noise on V: vb.noise.Additive(sigma={{"V": 0.5}})')
        return dW.V

    # ---- states

    def _split(self, x: Any) -> tuple[Array, tuple[dict[str, Array], ...], list[tuple[Array, ...]]]:
        rest = iter(x[1:])
        gates = tuple({gate: next(rest) for gate in one.gates} for one in self.mechanisms)
        receptors = [tuple(next(rest) for _ in self.receptors[name].states) for name in self.rows_of]
        return x.V, gates, receptors

    def _state(self, V: Array, gates: tuple[dict[str, Array], ...]) -> Any:
        """A state without synaptic activity."""
        given = {"V": V} | {
            v: x[gate]
            for one, x in zip(self.mechanisms, gates, strict=True)
            for v, gate in zip(one.variables, one.gates, strict=True)
        }
        shapes = self.shapes(self.n_nodes)
        return self.State(**{name: given.get(name, jnp.zeros(shape, V.dtype)) for name, shape in shapes.items()})

    def site_number(self, at: str | int) -> int:
        """Number of a site, by its name or itself."""
        names = self.labels or ()
        site = names.index(str(at)) if at in names else at
        if isinstance(site, str) or not _check.is_count(site) or not 0 <= site < self.n_nodes:
            raise ValueError(f"at={at!r} is no site. {did_you_mean(str(at), names or ['0', str(self.n_nodes - 1)])}")
        return int(site)

    def _events(self, given: Mapping[str, SpikeTrain]) -> dict[str, SpikeTrain]:
        driven = [name for name in self.rows_of if self.receptors[name].driven]
        for name, train in given.items():
            if not isinstance(train, SpikeTrain):
                raise TypeError(f"events {name!r} is {train!r}; expected vb.cable.SpikeTrain([5.0, 9.0], receptor=...)")
            if train.receptor not in driven:
                raise ValueError(
                    f"events {name!r} are of the receptor {train.receptor!r}. {did_you_mean(train.receptor, driven)}"
                )
            self.site_number(train.at)
        return dict(given)

    # ---- clamps

    def _clamped(self, state: str) -> list[int]:
        """Sites where a variable is clamped."""
        return [site for _, variable, site in self.held if variable == state]

    def _signal(self, key: str, t: Array, like: Array) -> Array:
        row = like[:1]
        return jnp.broadcast_to(self.clamps[key].signal(t, row), row.shape)[0].astype(like.dtype)

    def _hold(self, t: Array, V: Array, gates: tuple[Any, ...]) -> tuple[Array, tuple[Any, ...]]:
        """Voltage and gates with clamped ones at their signal."""
        new = [dict(one) for one in gates]
        for key, variable, site in self.held:
            i, signal = int(self.sites.index[site]), self._signal(key, t, V)
            if variable == "V":
                V = V.at[i].set(signal)
                continue
            for own, one in zip(new, self.mechanisms, strict=True):
                for gate, name in zip(one.gates, one.variables, strict=True):
                    if name == variable:
                        row = int(np.flatnonzero(one.place.index == i)[0])
                        own[gate] = own[gate].at[row].set(signal)
        return V, tuple(new)

    def _pinned(self, e: Array, b: Array, V: Array, t: Array) -> tuple[Array, Array]:
        """The system with clamped voltages as its solution."""
        for key, variable, site in self.held:
            if variable == "V":
                i = int(self.sites.index[site])
                g = HELD * e[i]
                e, b = e.at[i].set(g), b.at[i].set(g * (self._signal(key, t, V) - V[i]))
        return e, b

    def _clamps(self, given: Any) -> tuple[dict[str, Clamp], tuple[tuple[str, str, int], ...]]:
        """Clamps by site and state, and where they are."""
        found, held = {}, []
        for one in (given,) if isinstance(given, Clamp) else given:
            if not isinstance(one, Clamp):
                raise TypeError(f'clamps has {one!r}; write clamps=(vb.cable.Clamp("V", signal, at="soma"),)')
            site = self.site_number(one.at)
            gates = {v: m.place.index for m in self.mechanisms for v in m.variables}
            if one.state != "V" and one.state not in gates:
                raise ValueError(f"a clamp holds {one.state!r}. {did_you_mean(one.state, ['V', *gates])}")
            if one.state != "V" and self.sites.index[site] not in gates[one.state]:
                raise ValueError(f"a clamp holds {one.state!r} at {one.at!r}, which lies outside its region")
            key = f"{one.at}_{one.state}".replace(".", "_")
            if key in found:
                raise ValueError(f"two clamps hold {one.state!r} at {one.at!r}; give one signal")
            found[key] = one
            held.append((key, one.state, site))
        return found, tuple(held)

    # ---- checks

    def check_stimulus(self, stimulus: Any) -> None:
        largest = {
            path.rpartition(".")[2]: float(np.abs(np.asarray(leaf.value)).max())
            for path, leaf in paths(stimulus).items()
            if leaf.value.size and not is_traced(leaf.value)
        }
        heights = [largest[name] for name in ("amplitude", "values", "low", "high") if name in largest]
        height = max(heights, default=0.0) * largest.get("gain", 1.0)
        if height > MOST_CURRENT:
            warnings.warn(
                f"the stimulus reaches {height:g} nA, above {MOST_CURRENT:g}; stimuli of cells are in nA, and 0.1 to 1 "
                "make a neuron spike",
                stacklevel=4,
            )

    def check_step(self, dt: float) -> None:
        self.warn_of_step(dt, "Native", STAGGERED_BOUND)

    def warn_of_step(self, dt: float, name: str, bound: float | None) -> None:
        """Warn where G dt/C exceeds what a scheme bears."""
        leaves = (self.capacitance, self.axial_resistivity, self.radius_scale)
        if bound is None or is_traced(leaves):
            return
        with jax.ensure_compile_time_eval():  # these numbers are known, whatever else is being traced
            parts = self.parts_now()
            leaving = tree_of(self.comp).leaving(jnp.zeros(self.comp.n), parts.resistance)
            worst = float(jnp.max(leaving * dt / parts.capacitance))
        if worst > bound:
            warnings.warn(
                f"G dt/C is {worst:.3g} where compartments are smallest, with {name}(dt={dt:g}) it should stay below "
                f"{bound:g}; take a shorter dt, longer compartments, or vb.cable.BackwardEuler, which bears any",
                stacklevel=6,
            )


def _elsewhere_nan(a: Array, at: np.ndarray) -> Array:
    """Rows of `a`, NaN where `at` is -1."""
    inside = (at >= 0).reshape(-1, *(1,) * (a.ndim - 1))
    return jnp.where(inside, a[np.maximum(at, 0)], jnp.nan)


def _channels(comp: Compartments, given: Any) -> tuple[dict[str, dict[str, AbstractMechanism]], tuple[Mechanism, ...]]:
    """Channels by region and name, and where they are."""
    if not isinstance(given, Mapping) or not given:
        raise TypeError(f'channels={given!r} was given; expected channels by region, {{"all": vb.cable.Leak()}}')
    found: dict[str, dict[str, AbstractMechanism]] = {}
    order = []
    for region, several in given.items():
        place, own = Place(comp.of(region), comp.n), found.setdefault(region, {})
        if region in Cell.__dataclass_fields__:
            raise ValueError(f"a region is named {region!r}, as a parameter of the cell; name it otherwise")
        for one in several if isinstance(several, tuple | list) else (several,):
            if not isinstance(one, AbstractMechanism):
                raise TypeError(f"region {region!r} has {one!r}; expected a channel such as vb.cable.HH()")
            label = one.label()
            if label in own:
                raise ValueError(f"region {region!r} names the channel {type(one).__name__} twice; add them into one")
            own[label] = one
            order.append(Mechanism(region, label, place, type(one).gates))
    return found, tuple(order)


def _sites(comp: Compartments, given: Any) -> tuple[tuple[str, ...] | None, Place]:
    """Names of the sites, if any, and their compartments."""
    if given == "all":
        return None, Place(np.arange(comp.n), comp.n)
    if not isinstance(given, Mapping) or not given:
        raise TypeError(f'sites={given!r} was given; expected {{"soma": comp.site("soma", 0.5)}}, or "all"')
    for name, i in given.items():
        if not _check.is_count(i) or not 0 <= i < comp.n:
            raise ValueError(f"site {name!r} is compartment {i!r}; there are {comp.n}, 0 to {comp.n - 1}")
    return tuple(map(str, given)), Place(np.array(list(given.values())), comp.n)


def _receptors(given: Any) -> dict[str, AbstractReceptor]:
    for name, one in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a receptor was named {name!r}; expected a name of letters and digits, such as 'ampa'")
        if not isinstance(one, AbstractReceptor):
            raise TypeError(f"receptor {name!r} is {one!r}; expected one such as vb.cable.ExpSyn(tau=2.0, e=0.0)")
    return dict(given)
