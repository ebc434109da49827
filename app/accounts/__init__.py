"""Who may come in: people by password and session, machines by key.

    people    passwords.py → login.py (sign in, find a session, sign out)
              providers.py (the same through a login provider) · sign_up.py, recovery.py, members.py, endings.py
    machines  keys.py (create, show, revoke) → resolve.py (a key or token becomes a scope; what we sign with)
    tenants   environments.py (an account with its production environment and keys) ← bootstrap.py (from a command)

Nothing here knows HTTP: `app.web` turns outcomes and refusals into answers.
"""
