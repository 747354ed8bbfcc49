"""The trusted side: pools, REPLs and the processes behind them."""
