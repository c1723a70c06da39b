"""One run: options, plan, store, executors, labelling, results, report."""
