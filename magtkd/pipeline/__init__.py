"""The chain of stages: which there are, what each reads, the keys that follow, and running them.

Imports no torch: a trial and the engine plan with it. Training itself is imported when it starts.
"""

from magtkd.pipeline.members import STAGES, MediaStage, find_stage
from magtkd.pipeline.plan import Plan, describe_stage, make_plan
from magtkd.pipeline.record import Outcome, StageRecord, reused_record, trained_record
from magtkd.pipeline.run import run_chain, stage_checkpoints, train_stage
from magtkd.pipeline.source import Source, source_of
from magtkd.pipeline.stage import OpenSession, Stage, TrainedStage, Trainer
from magtkd.pipeline.trainer import CORE_TRAINER, CoreTrainer, inputs_of, outputs_table
from magtkd.pipeline.unread import given_settings, unread_lines, unread_names, unread_settings

__all__ = [
    "CORE_TRAINER",
    "STAGES",
    "CoreTrainer",
    "MediaStage",
    "OpenSession",
    "Outcome",
    "Plan",
    "Source",
    "Stage",
    "StageRecord",
    "TrainedStage",
    "Trainer",
    "describe_stage",
    "find_stage",
    "given_settings",
    "inputs_of",
    "make_plan",
    "outputs_table",
    "reused_record",
    "run_chain",
    "source_of",
    "stage_checkpoints",
    "train_stage",
    "trained_record",
    "unread_lines",
    "unread_names",
    "unread_settings",
]
