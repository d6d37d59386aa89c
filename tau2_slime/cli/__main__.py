from tau2_slime.cli.main import main

main()
