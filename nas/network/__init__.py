"""What a network is: operators, their graph, integer arithmetic, and a reference of it."""
