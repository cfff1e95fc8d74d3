from codefleet.execution.supervisor import child_environment


def test_only_the_harmless_and_the_named_pass():
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "https_proxy": "http://proxy.example",
        "SSL_CERT_FILE": "/certificates.pem",
        "ANTHROPIC_API_KEY": "named",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "HOME": "/home/somebody",
    }
    assert child_environment(environ, ["ANTHROPIC_API_KEY", "NOT_SET"], {"HOME": "/scratch"}) == {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "https_proxy": "http://proxy.example",
        "SSL_CERT_FILE": "/certificates.pem",
        "ANTHROPIC_API_KEY": "named",
        "HOME": "/scratch",
    }


def test_what_is_set_wins_over_what_is_taken():
    assert child_environment({"PATH": "/bin"}, [], {"PATH": "/opt/bin"}) == {"PATH": "/opt/bin"}


def test_codefleet_s_own_settings_never_pass():
    environ = {"CODEFLEET_MONGO_URL": "canary", "CODEFLEET_RUN": "outer:1"}
    assert child_environment(environ, environ, {"CODEFLEET_TOKEN": "canary"}) == {}
