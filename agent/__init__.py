"""How one step is decided: state, ledger, budget, plan, selection, nodes, routes."""
