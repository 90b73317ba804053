"""What is handed over at the end: report, sign-offs, checklists, proof of the audit database, export and purge."""
