"""The database: identities, conversations, answers, drafts, feedback, nights, the ledger and approvals."""
