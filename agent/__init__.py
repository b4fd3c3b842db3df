"""Steps of the graphs: state, context, ledger, budget, selection, nodes and routes."""
