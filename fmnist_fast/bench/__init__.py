"""`fmnist-fast bench`: how fast this is on this machine, beside others, and where the time goes.

peers       the same network by this project and by other packages
contender   one of them in a process of its own
phases      where an epoch's time goes
measure     rounds in which all are measured in turn; the result
"""
