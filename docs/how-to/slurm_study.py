"""Draws of a whole-brain model on a Slurm cluster, into a store: submit jobs, simulate, cancel what is left of them.

    python slurm_study.py --store /scratch/me/draws --draws 20000 --jobs 20 --partition cpu
    python slurm_study.py --store draws --draws 256 --local

It runs where jobs can be submitted from (a login node, or a small job of its own) and has little to do there. Stopped,
the same command goes on. With --local two processes of this computer take the place of the jobs.
"""

import argparse

import jax
import numpyro.distributions as dist

import vbinfer as vb

ONE_THREAD = [f"export {name}=1" for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]


def study():
    """The prior and the simulator; put your own here."""
    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=0.6, I_o=0.33),
        vb.load_connectome("hcp-aal2"),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=2.0),
        noise=vb.noise.Additive(sigma=0.01),
        monitors={"bold": vb.monitors.BalloonWindkessel("S", period=720.0)},
    )
    summary = vb.Summary(period=720.0, fc=vb.features.fc_stat)
    forward = vb.ForwardModel(sim, t1=14_400.0, transient=7_200.0, summary=summary)
    return vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5)}), forward


def jobs(count, partition, memory="16GB", walltime="04:00:00"):
    """Slurm jobs of 8 cores, with 8 single-threaded workers each, as they are needed: at least one, at most `count`."""
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        cores=8,
        processes=8,
        memory=memory,
        walltime=walltime,
        queue=partition,
        job_script_prologue=ONE_THREAD,
        # a worker that stops by itself, before Slurm ends its job, loses nothing: a new one goes on
        worker_extra_args=["--lifetime", "230m", "--lifetime-stagger", "5m"],
    )
    cluster.adapt(minimum_jobs=1, maximum_jobs=count)
    return cluster


def processes():
    """Two workers on this computer."""
    from distributed import LocalCluster

    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="folder of the draws")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=10, help="Slurm jobs at most")
    parser.add_argument("--partition", help="where to submit them")
    parser.add_argument("--local", action="store_true", help="two processes of this computer instead")
    args = parser.parse_args()
    prior, forward = study()
    with processes() if args.local else jobs(args.jobs, args.partition) as cluster, cluster.get_client() as client:
        draws = vb.sample_prior_predictive(
            prior, forward, n=args.draws, key=jax.random.key(0), store=args.store, executor=vb.Dask(client)
        )
    print(f"{len(draws)} draws in {args.store}, {draws.info['simulated']} of them new, {(~draws.valid).sum()} failed")


if __name__ == "__main__":  # the processes of a LocalCluster read this file again
    main()
