"""Judge: OpenCompass runs, paired comparison, the gate and the release card."""
