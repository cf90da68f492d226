"""Stage `pretrain`: continued pretraining on documents."""
