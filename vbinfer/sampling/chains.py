"""Chains side by side, in chunks of one compiled program.

run_chains (one observation)     sampler (many observations)
              \\                   /
               Chains: start -> warm_up -> draw -> draw -> ...
                 |  holds the state of all chains, leaves [chain, ...]
               Programs: start, adapt, advance    compiled once per kernel, prior and likelihood
                 |  vmap over the chains; shard_map over the devices
               Chain: start, adapt, step          one chain, written by a kernel
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.execute.options import deterministic_xla
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import AbstractKernel, KernelOutput, LogLikelihood, Problem, RunOptions, Sample, joined
from vbinfer.sampling.starts import starting_points
from vbinfer.sampling.store import Saved, open_store

CHUNK = 50
"""Draws between two looks at the clock: the grain of the bar, of the store and of an interruption."""


class Chain(NamedTuple):
    """One chain as pure functions of what it carries.

    Attributes:
        start: `(z, key) -> carry`.
        adapt: the whole warm-up, `carry -> carry`; None if the first steps adapt by themselves.
        step: `carry -> (carry, Sample)`.
        check: looks at the saved state of all chains after the warm-up, and raises where it is of no use.
    """

    start: Callable[[Array, PRNGKey], Any]
    adapt: Callable[[Any], Any] | None
    step: Callable[[Any], tuple[Any, Sample]]
    check: Callable[[Mapping[str, np.ndarray]], None] | None = None


@dataclasses.dataclass(frozen=True)
class AbstractChainKernel(AbstractKernel):
    """A kernel whose chains run side by side.

    Its options say how one starts, adapts and steps.
    """

    @abc.abstractmethod
    def chain(self, problem: Problem, num_warmup: int) -> Chain:
        """One chain as pure functions.

        The observation of the problem may be traced.
        """

    def run(self, problem: Problem, options: RunOptions) -> KernelOutput:
        """Sample the problem in chunks."""
        return run_chains(self, problem, options)


class Layout(NamedTuple):
    """Number of devices; whether chains share x."""

    devices: int
    shared: bool


def layout_of(num_chains: int, *, chain_method: str = "auto", shared: bool) -> Layout:
    """The layout of chains on the devices of this process.

    Raises:
        ValueError: `"parallel"` chains that do not divide over the devices.
    """
    # chains that do not divide over the devices run on one of them: all would wait for the fullest
    there = 1 if chain_method == "vectorized" else jax.local_device_count()
    if num_chains % there and chain_method == "parallel":
        raise ValueError(
            f"chain_method='parallel' was asked for, but {num_chains} chains do not divide over {there} devices; "
            f"give a multiple of {there} chains, or write chain_method='vectorized'"
        )
    return Layout(there if num_chains % there == 0 else 1, shared)


class Programs(NamedTuple):
    """Compiled programs of many chains.

    The state is what they carry, leaves `[chain, ...]`.

    Attributes:
        start: `(x, z [chain, Dz], keys [chain]) -> state`.
        adapt: the warm-up of kernels that adapt in one go, `(x, state) -> state`.
        advance: `(x, state, count <= CHUNK) -> (state, Sample [CHUNK, chain, ...])`.
    """

    start: Callable[..., Any]
    adapt: Callable[..., Any]
    advance: Callable[..., Any]


@functools.lru_cache(maxsize=8)
def programs_of(
    kernel: AbstractChainKernel, prior: Prior, likelihood: LogLikelihood, num_warmup: int, layout: Layout
) -> Programs:
    """Compiled programs, kept.

    Another observation, key or number of draws compiles nothing.
    """
    x_axis = None if layout.shared else 0  # one observation for all chains, or one each

    # A function of one chain under vmap. With x_axis None all chains share one x; with 0 chain i has row i:
    #     x [chain, ...]   state [chain, ...]   ->   state [chain, ...]
    def many(function: Callable[..., Any]) -> Callable[..., Any]:
        @jax.jit  # keeps its trace: where a program takes shapes and then loops, a kernel is still traced once
        def one(x: Any, *carried: Any) -> Any:
            # made from the traced x: nothing of one observation stays in a program
            return function(kernel.chain(Problem(prior, likelihood, x), num_warmup), *carried)

        return lambda x, *carried: jax.vmap(one, (x_axis, *(0 for _ in carried)))(x, *carried)

    step = many(_step)

    def advance(x: Any, state: Any, count: Array) -> tuple[Any, Sample]:
        # A buffer of CHUNK rows, of which the first `count` are written: one program for every length, so draws do not
        # depend on where a run was cut.
        #     row   0      1      2     ...  count-1    count ... CHUNK-1
        #         [draw] [draw] [draw]  ...  [draw]      0    ...   0
        def body(i: Array, carried: tuple[Any, Sample]) -> tuple[Any, Sample]:
            state, sample = step(x, carried[0])
            put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            return state, jax.tree.map(put, carried[1], sample)

        like = jax.eval_shape(step, x, state)[1]
        rows = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), like)
        return jax.lax.fori_loop(0, count, body, (state, rows))

    rows, whole = PartitionSpec("chain"), PartitionSpec()
    data = whole if layout.shared else rows
    return Programs(
        _spread(many(_start), layout.devices, (data, rows, rows), rows),
        _spread(many(_adapt), layout.devices, (data, rows), rows),
        _spread(advance, layout.devices, (data, rows, whole), (rows, PartitionSpec(None, "chain"))),
    )


def _spread(function: Callable[..., Any], devices: int, inputs: Any, outputs: Any) -> Callable[..., Any]:
    """A compiled function of many chains, over the devices."""
    if devices > 1:
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("chain",))
        function = jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
    return jax.jit(function, compiler_options=deterministic_xla())


def _start(chain: Chain, z: Array, key: PRNGKey) -> Any:
    carry = chain.start(z, key)
    return _typed(carry, carry)


def _adapt(chain: Chain, carry: Any) -> Any:
    assert chain.adapt is not None
    return _typed(chain.adapt(carry), carry)


def _step(chain: Chain, carry: Any) -> tuple[Any, Sample]:
    after, sample = chain.step(carry)
    return _typed(after, carry), sample


def _typed(carry: Any, like: Any) -> Any:
    """A carry with the types of another.

    A Python number in it would have a program compiled a second time.
    """
    return jax.tree.map(lambda new, old: new if _is_key(new) else jnp.asarray(new, jnp.result_type(old)), carry, like)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key)


class Chains:
    """Chains side by side, and their state.

    Args:
        kernel: its options; hashable.
        problem: the density; its x has a leading axis of chains unless the layout says that they share it.
        num_warmup: steps that adapt the kernel.
        layout: where the chains lie.
    """

    def __init__(self, kernel: AbstractChainKernel, problem: Problem, num_warmup: int, layout: Layout) -> None:
        self._programs = programs_of(kernel, problem.prior, problem.likelihood, num_warmup, layout)
        self._chain = kernel.chain(problem, num_warmup)
        self._x, self._num_warmup, self._state = problem.x, num_warmup, None

    def start(self, z: Array, keys: Array) -> None:
        """Begin at z `[chain, Dz]`."""
        self._state = self._programs.start(self._x, z, keys)

    def warm_up(self, done: int = 0) -> Iterator[int]:
        """Adapt from step `done` on.

        Yields the steps done so far.
        """
        total = self._num_warmup
        while done < total:
            # a warm-up in one go has no state half-way; others warm up by steps whose draws are thrown away
            end = total if self._chain.adapt is not None else min(done + CHUNK, total)
            if self._chain.adapt is not None:
                self._state = self._programs.adapt(self._x, self._state)
            else:
                for _ in self.draw(done, end):
                    pass
            done = end
            if done == total and self._chain.check is not None:
                self._chain.check(self.saved())
            yield done

    def draw(self, done: int, total: int) -> Iterator[Sample]:
        """Draws number `done` to `total`, in chunks.

        Pieces are `[chain, count <= CHUNK, ...]` and end at multiples of CHUNK.
        """
        while done < total:
            # pieces end at multiples of CHUNK wherever a run began, so a store that grows keeps its files
            count = min(CHUNK - done % CHUNK, total - done)
            self._state, rows = self._programs.advance(self._x, self._state, np.int32(count))
            done += count
            # chains first; copied, so that a piece of few draws does not hold the whole buffer
            yield jax.tree.map(lambda leaf, n=count: np.swapaxes(np.asarray(leaf)[:n], 0, 1).copy(order="C"), rows)

    def saved(self) -> dict[str, np.ndarray]:
        """State of the chains, by name.

        Everything from which they go on; keys as their words.
        """
        leaves = jax.tree_util.tree_flatten_with_path(self._state)[0]
        arrays = {
            _name(path): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for path, leaf in leaves
        }
        return arrays | {"num_warmup": np.asarray(self._num_warmup)}

    def restore(self, saved: Mapping[str, np.ndarray], z_dim: int, keys: Array) -> None:
        """Go on from a saved state.

        It is checked against what chains of these keys carry.
        """
        impl = jax.random.key_impl(keys)

        def restored(path: Any, like: jax.ShapeDtypeStruct) -> Array:
            name, key = _name(path), _is_key(like)
            wanted = jax.eval_shape(jax.random.key_data, like) if key else like
            given = saved.get(name)
            if given is None or (given.shape, given.dtype) != (wanted.shape, wanted.dtype):
                what = f"no {name}" if given is None else f"{name} {list(given.shape)} of {given.dtype}"
                raise ValueError(
                    f"the state to go on from has {what}; these chains carry {list(wanted.shape)} of {wanted.dtype}: "
                    f"give the prior, kernel, number of chains and precision of the run that left it"
                )
            return jax.random.wrap_key_data(jnp.asarray(given), impl=impl) if key else jnp.asarray(given)

        z = jax.ShapeDtypeStruct((len(keys), z_dim), jnp.result_type(float))
        # what these chains would carry, as shapes: the saved arrays are checked and nothing is run
        like = jax.eval_shape(self._programs.start, self._x, z, keys)
        self._state = jax.tree_util.tree_map_with_path(restored, like)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


@functools.partial(jax.jit, static_argnums=1)
def _keys(key: PRNGKey, num_chains: int) -> tuple[PRNGKey, Array]:
    """A key for the starting points, and one per chain.

    None knows the number of draws.
    """
    k_start, k_run = jax.random.split(key)
    return k_start, jax.random.split(k_run, num_chains)


def run_chains(kernel: AbstractChainKernel, problem: Problem, options: RunOptions) -> KernelOutput:
    """Warm up and draw, or go on.

    Begins anew, from a state or from a store. n draws, then m more from the state left behind, are the n + m of one
    run, bit for bit.
    """
    from tqdm import tqdm

    num_warmup = options.num_warmup if options.state is None else int(options.state["num_warmup"])
    k_start, keys = _keys(options.key, options.num_chains)
    layout = layout_of(options.num_chains, chain_method=options.chain_method, shared=True)
    chains = Chains(kernel, problem, num_warmup, layout)
    store = None if options.store is None else open_store(kernel, problem, options)
    saved = Saved(options.state, num_warmup, []) if store is None or (kept := store.read()).state is None else kept
    warmed, pieces, done = saved.warmed, saved.pieces, saved.draws
    if saved.state is not None:
        chains.restore(saved.state, problem.prior.z_dim, keys)
    else:
        warmed = 0
        chains.start(starting_points(problem, options, k_start), keys)
    diverged = sum(int(piece.stats["diverging"].sum()) for piece in pieces)
    bar = tqdm(total=num_warmup + options.num_samples, initial=warmed + done, unit="draw", disable=not options.progress)
    with bar:
        bar.set_description("warm-up")
        for steps in chains.warm_up(warmed):
            bar.update(steps - warmed)
            warmed = steps
            if store is not None:
                store.put_warmup(steps, chains.saved())
        bar.set_description("sampling")
        # the state goes into the store with the draws before it: whoever reads the last piece can go on
        for piece in chains.draw(done, options.num_samples):
            pieces.append(piece)
            if store is not None:
                store.put_draws(len(pieces) - 1, piece, chains.saved())
            diverged += int(piece.stats["diverging"].sum())
            bar.set_postfix_str(f"{diverged} divergences", refresh=False)
            bar.update(piece.potential_energy.shape[1])
    return KernelOutput(*joined(pieces), state=chains.saved())
