"""The only code that names Ray: a session, pipelines of stages, distributed training."""
