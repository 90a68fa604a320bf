"""The loop that all chains share: warm-up and draws, in chunks of one compiled program."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.execute.options import deterministic_xla
from vbinfer.sampling.problem import AbstractKernel, Form, Plan, Problem, Run
from vbinfer.sampling.starts import repeated, starting_points
from vbinfer.sampling.store import ChainStore, open_store

CHUNK = 50
"""Draws between two looks at the clock: the grain of the bar, of the store and of an interruption."""

State = dict[str, Array]
"""Everything from which the chains go on, by name, `[chain, ...]`; keys as their words."""


class Sample(NamedTuple):
    """One draw of one chain: z `[Dz]`, U(z), and what the kernel says of it."""

    z: Array | np.ndarray
    potential_energy: Array | np.ndarray
    stats: dict[str, Any]


class Chain(NamedTuple):
    """One chain as pure functions of a carried tree; the loop maps them over the chains.

    Attributes:
        start: `(z, key) -> carry`.
        adapt: the whole warm-up, `carry -> carry`; None if the first steps adapt by themselves.
        step: `carry -> (carry, Sample)`.
        check: looks at the state of all chains after the warm-up, and raises where it is of no use.
    """

    start: Callable[[Array, PRNGKey], Any]
    adapt: Callable[[Any], Any] | None
    step: Callable[[Any], tuple[Any, Sample]]
    check: Callable[[Mapping[str, np.ndarray]], None] | None = None


class AbstractChainKernel(AbstractKernel):
    """A kernel of chains: frozen options that say how one chain starts, adapts and steps."""

    @abc.abstractmethod
    def chain(self, problem: Problem, num_warmup: int) -> Chain:
        """One chain as pure functions; the observation of the problem may be traced."""

    def run(self, problem: Problem, plan: Plan) -> Run:
        """Sample the problem as the plan says."""
        return run_chains(self, problem, plan)


def run_chains(kernel: AbstractChainKernel, problem: Problem, plan: Plan) -> Run:
    """Warm up and draw, in chunks; begin anew, or go on from the plan's state or from what its store holds.

    The program of a chunk is the same for every length and every chunk, so draws do not depend on where a run was
    cut: n draws, then m more from the state left behind, are the n + m of one run, bit for bit.

    Args:
        kernel: its options; hashable.
        problem: the density over z.
        plan: sizes, key, starts, and whence the chains go on.
    """
    num_warmup = plan.num_warmup if plan.state is None else int(plan.state["num_warmup"])
    k_start, k_run = jax.random.split(plan.key)
    keys = jax.random.split(k_run, plan.num_chains)
    shared, x = (problem, ()) if problem.form is None else (problem.form, repeated(problem.x_o, plan.num_chains))
    programs = programs_of(kernel, shared, (num_warmup, plan.num_chains, plan.chain_method), setting_of(keys)).on(x)
    store = open_store(kernel, problem, plan) if plan.store is not None else None
    state, warmed, pieces = _resumed(programs, plan, store)
    if state is None:
        state = programs.start(starting_points(problem, plan, k_start), keys)
    with _Bar(num_warmup + plan.num_samples, plan.progress) as bar:
        if warmed < num_warmup:
            state = _warm_up(programs, state, (warmed, num_warmup), store, bar)
        else:
            bar.add("sampling", warmed, 0)
        done = sum(piece.potential_energy.shape[1] for piece in pieces)
        bar.add("sampling", done, sum(int(piece.stats["diverging"].sum()) for piece in pieces))
        while done < plan.num_samples:
            count = min(CHUNK - done % CHUNK, plan.num_samples - done)
            state, piece = programs.advance(state, count)
            pieces.append(piece)
            if store is not None:
                store.put_draws(len(pieces) - 1, piece._asdict(), _left(state, num_warmup))
            done += count
            bar.add("sampling", count, int(piece.stats["diverging"].sum()))
    whole = _joined(pieces)
    return Run(whole.z, whole.potential_energy, whole.stats, state=_left(state, num_warmup))


def _warm_up(programs: "Runner", state: State, steps: tuple[int, int], store: ChainStore | None, bar: "_Bar") -> State:
    done, total = steps
    if programs.chain.adapt is not None:
        bar.add("warm-up", 0, 0)
        state, done = programs.adapt(state), total
        bar.add("warm-up", total, 0)
    else:
        bar.add("warm-up", done, 0)
    while done < total:
        count = min(CHUNK, total - done)
        state, _ = programs.advance(state, count)
        done += count
        bar.add("warm-up", count, 0)
        if store is not None and done < total:
            store.put_warmup(done, _left(state, total))
    if programs.chain.check is not None:
        programs.chain.check(_left(state, total))
    if store is not None:
        store.put_warmup(total, _left(state, total))
    return state


def setting_of(keys: Array) -> tuple[Any, str]:
    """What a program depends on besides its arguments: the kind of keys and the precision."""
    return jax.random.key_impl(keys), str(jnp.result_type(float))


@functools.lru_cache(maxsize=8)
def programs_of(
    kernel: AbstractChainKernel, shared: Problem | Form, sizes: tuple[int, int, str], setting: tuple[Any, str]
) -> "Programs":
    """Compiled programs, kept: going on with a run, or repeating it with another key, compiles nothing.

    Those of a form serve every observation of its shape.
    """
    num_warmup, num_chains, chain_method = sizes
    if isinstance(shared, Form):
        make, like = lambda x: kernel.chain(shared.at(x), num_warmup), shared.like
    else:
        chain = kernel.chain(shared, num_warmup)
        make, like = lambda _: chain, ()
    shape = (num_chains, shared.prior.z_dim)
    return Programs(make, like, shape, jax.random.key(0, impl=setting[0]), chain_method)


class Programs:
    """The compiled programs of a run: all chains side by side in one, or spread over the devices.

    Args:
        make: the chain of one observation; `like` its shape and type, `()` where the chain holds it already.
        shape: number of chains, and of unconstrained parameters.
        key: any key of the kind that the run uses.
        chain_method: `"auto"`, `"vectorized"` or `"parallel"`.
    """

    def __init__(
        self, make: Callable[[Any], Chain], like: Any, shape: tuple[int, int], key: Array, chain_method: str
    ) -> None:
        self._make, self._shape, self._impl = make, shape, jax.random.key_impl(key)
        self._place = jax.ShapeDtypeStruct(shape[1:], jnp.result_type(float)), jax.ShapeDtypeStruct((), key.dtype)
        self.chain = make(like)
        self._like = jax.eval_shape(lambda x, z, key: make(x).start(z, key), like, *self._place)
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(self._like)[0]]
        self._names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
        self._samples = jax.eval_shape(lambda x, carry: self._chain(x).step(carry)[1], like, self._like)
        spread = functools.partial(_spread, devices=_devices(chain_method, shape[0]))
        chains, once, drawn = PartitionSpec("chain"), PartitionSpec(), PartitionSpec(None, "chain")
        self.start = spread(self._start, specs=((chains, chains, chains), chains))
        self.adapt = spread(self._adapt, specs=((chains, chains), chains))
        self.advance = spread(self._steps, specs=((chains, chains, once), (chains, drawn)))

    def _chain(self, x: Any) -> Chain:
        """The chain of one observation, ready to step: an engine sets its schedule when it starts, if only traced."""
        chain = self._make(x)
        jax.eval_shape(chain.start, *self._place)
        return chain

    def on(self, x: Any) -> "Runner":
        """These programs on observations with a leading axis of chains, `()` where the chains hold theirs."""
        return Runner(self, x)

    def restored(self, saved: Mapping[str, np.ndarray]) -> State:
        """The state of the chains out of what was saved, checked against what these chains carry."""
        for name, leaf in zip(self._names, jax.tree.leaves(jax.eval_shape(self._pack, self._like)), strict=True):
            wanted, given = (self._shape[0], *leaf.shape), np.shape(saved[name]) if name in saved else None
            if given != wanted or saved[name].dtype != leaf.dtype:
                what = f"{name} {list(given)} of {saved[name].dtype}" if given is not None else f"no {name}"
                raise ValueError(
                    f"the state to go on from has {what}; these chains carry {list(wanted)} of {leaf.dtype}: "
                    f"give the prior, kernel, number of chains and precision of the run that left it"
                )
        return {name: jnp.asarray(saved[name]) for name in self._names}

    def _start(self, x: Any, z: Array, keys: Array) -> State:
        return jax.vmap(lambda x, z, key: self._named(self._make(x).start(z, key)))(x, z, keys)

    def _adapt(self, x: Any, state: State) -> State:
        def one(x: Any, state: State) -> State:
            adapt = self._chain(x).adapt
            assert adapt is not None
            return self._named(adapt(self._tree(state)))

        return jax.vmap(one)(x, state)

    def _steps(self, x: Any, state: State, count: Array) -> tuple[State, Sample]:
        def one(x: Any, state: State) -> tuple[State, Sample]:
            carry, sample = self._chain(x).step(self._tree(state))
            return self._named(carry), sample

        def body(i: Array, carried: tuple[State, Sample]) -> tuple[State, Sample]:
            state, sample = jax.vmap(one)(x, carried[0])
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            return state, jax.tree.map(lambda all_, now: put(all_, now.astype(all_.dtype)), carried[1], sample)

        chains = next(iter(state.values())).shape[0]
        empty = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, chains, *leaf.shape), leaf.dtype), self._samples)
        return jax.lax.fori_loop(0, count, body, (state, empty))

    def _named(self, carry: Any) -> State:
        """A carry as named arrays of the types it began with (a step may return a Python number)."""
        return dict(zip(self._names, jax.tree.leaves(self._pack(carry)), strict=True))

    def _pack(self, carry: Any) -> Any:
        def words(leaf: Any, like: Any) -> Array:
            return jax.random.key_data(leaf) if _is_key(like) else jnp.asarray(leaf, like.dtype)

        return jax.tree.map(words, carry, self._like)

    def _tree(self, state: State) -> Any:
        def value(name: str, like: Any) -> Array:
            return jax.random.wrap_key_data(state[name], impl=self._impl) if _is_key(like) else state[name]

        leaves, treedef = jax.tree.flatten(self._like)
        return jax.tree.unflatten(treedef, [value(*pair) for pair in zip(self._names, leaves, strict=True)])


class Runner(NamedTuple):
    """Programs and what they run on.

    Attributes:
        programs: compiled for any observation of one shape.
        x: the observation of each chain.
    """

    programs: Programs
    x: Any

    @property
    def chain(self) -> Chain:
        """One chain as pure functions."""
        return self.programs.chain

    def start(self, z: Array, keys: Array) -> State:
        """The state of chains that begin at z `[chain, Dz]`."""
        return self.programs.start(self.x, z, keys)

    def adapt(self, state: State) -> State:
        """The state after the whole warm-up, of a kernel that adapts in one go."""
        return self.programs.adapt(self.x, state)

    def advance(self, state: State, count: int) -> tuple[State, Sample]:
        """`count <= CHUNK` steps of every chain: the state after them, and the draws `[chain, count, ...]`."""
        state, samples = self.programs.advance(self.x, state, jnp.asarray(count, jnp.int32))
        return state, jax.tree.map(lambda leaf: np.swapaxes(np.asarray(leaf)[:count], 0, 1).copy(order="C"), samples)


def _is_key(like: Any) -> bool:
    return jnp.issubdtype(like.dtype, jax.dtypes.prng_key)


def _devices(chain_method: str, num_chains: int) -> int:
    """Over how many devices the chains go."""
    there = jax.local_device_count()
    if chain_method == "vectorized":
        return 1
    if chain_method == "auto":
        return there if num_chains % there == 0 else 1
    if num_chains % there:
        raise ValueError(
            f"chain_method='parallel' was asked for, but {num_chains} chains do not divide over {there} devices; "
            f"give a multiple of {there} chains, or write chain_method='vectorized'"
        )
    return there


def _spread(function: Callable[..., Any], *, specs: tuple[Any, Any], devices: int) -> Callable[..., Any]:
    if devices > 1:
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("chain",))
        function = jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
    return jax.jit(function, compiler_options=deterministic_xla())


def _resumed(programs: Runner, plan: Plan, store: ChainStore | None) -> tuple[State | None, int, list[Sample]]:
    """State, warm-up steps and draws that are there already: those of the store, else the plan's, else none."""
    saved = None if store is None else store.read()
    if saved is not None and saved.state is not None:
        pieces = [Sample(piece["z"], piece["potential_energy"], piece["stats"]) for piece in saved.pieces]
        return programs.programs.restored(saved.state), saved.warmed, pieces
    if plan.state is not None:
        return programs.programs.restored(plan.state), int(plan.state["num_warmup"]), []
    return None, 0, []


def _left(state: State, num_warmup: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in state.items()} | {"num_warmup": np.asarray(num_warmup)}


def _joined(pieces: list[Sample]) -> Sample:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *pieces)


class _Bar:
    """The progress bar of a run of chains, on stderr: which phase, draws per chain, divergences so far."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar: Any = None
        self._divergences = 0
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="draw", mininterval=0.2, dynamic_ncols=True)

    def __enter__(self) -> "_Bar":
        return self

    def add(self, phase: str, count: int, divergences: int) -> None:
        self._divergences += divergences
        if self._bar is not None:
            self._bar.set_description(phase, refresh=False)
            self._bar.set_postfix_str(f"{self._divergences} divergences", refresh=False)
            self._bar.update(count)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
