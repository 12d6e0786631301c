"""stub"""


def instance_arguments(i):
    return ()
