"""The table of docs/bold.md: what each BOLD preset makes of an input of 1 for one second. Prints Markdown."""

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer.monitors.bold import PRESETS, BalloonWindkessel

STEP = 10.0  # ms


def response(preset: str) -> np.ndarray:
    """y / V0 every 10 ms for 40 s."""
    monitor = BalloonWindkessel("x", period=STEP, preset=preset)

    def one(carry, u):
        x = {"x": u[None]}
        return monitor.sample(monitor.update(monitor.observe(carry, x), STEP), x)

    _, y = jax.lax.scan(one, monitor.init({"x": jnp.zeros(1)}), jnp.where(jnp.arange(4_000) < 100, 1.0, 0.0))
    return np.asarray(y[:, 0] / monitor.V0, float)


print("| preset | kappa, gamma (1/s) | V0 | peak / V0 | time to peak (s) | FWHM (s) | undershoot / peak |")
print("|---|---|---|---|---|---|---|")
for name, p in PRESETS.items():
    y = response(name)
    peak, at, width = y.max(), (y.argmax() + 1) * STEP / 1e3, (y > y.max() / 2).sum() * STEP / 1e3
    print(
        f"| `{name}` | {p['kappa']:.3g}, {p['gamma']:.3g} | {p['V0']:g} | {peak:.4f} | {at:.2f} "
        f"| {width:.1f} | {y.min() / peak:.3f} |"
    )
