# Nomad client, docker driver: credentials from staithed for every task that names none itself.
# "staithe-nomad" is docker-credential-staithe-nomad on the PATH of the client.
# Into /etc/nomad.d/, then: systemctl restart nomad
plugin "docker" {
  config {
    auth {
      helper = "staithe-nomad"
    }
  }
}
