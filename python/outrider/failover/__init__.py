"""What happens when something dies: who holds the lease then, who takes over, and where it starts again."""
