"""Training: from a dataset to a job that survives the kernel.

`submission` has the verbs; `preparation` is what is ready to be sent, and sends it once; `turns` is
the lock between kernels; `handle` is the `Job`; `registry` finds jobs again; `measurements`
reads losses out of events. What is shown of a job is `render`'s and `ui`'s.
"""

from __future__ import annotations

from ftmagic.training.handle import Job
from ftmagic.training.measurements import Metric, Progress, read_metrics, read_progress
from ftmagic.training.preparation import Preparation
from ftmagic.training.registry import JobList, adopt, job, jobs
from ftmagic.training.submission import prepare, quote, train

__all__ = [
    "Job",
    "JobList",
    "Metric",
    "Preparation",
    "Progress",
    "adopt",
    "job",
    "jobs",
    "prepare",
    "quote",
    "read_metrics",
    "read_progress",
    "train",
]
